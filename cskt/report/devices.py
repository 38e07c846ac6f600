"""Steps on several processes and in pieces, from the run file of ``benchmarks/devices.py``."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cskt.report.style import BLUE, ORANGE

WHOLE = "the batch at once"
MODELLED = (8, 16, 32)  # processes, beyond those that were measured
GIGABITS = 10  # a second between two processes, of the modelled rows
BYTES = 4  # of a gradient's number, in fp32


def device_table(measurement: dict[str, Any]) -> pd.DataFrame:
    """A row per case of the run file: ``processes``, ``batch``, how it is ``encoded``, ``seconds``
    a step and the ``GB`` a process that its peak takes beyond the model."""
    table = pd.DataFrame(measurement["rows"])
    table["encoded"] = table["piece"].map(_way)
    table["GB"] = table["extra_memory_mb"] / 1000
    return table[["processes", "batch", "encoded", "seconds", "GB"]]


def _way(piece: float) -> str:
    """How a batch was encoded, in words; ``piece`` NaN: whole."""
    return WHOLE if pd.isna(piece) else f"{piece:.0f} pairs at a time"


def scaling_table(measurement: dict[str, Any]) -> pd.DataFrame:
    """One batch shared by more and more processes: ``processes``, ``pairs`` that each encodes,
    ``seconds`` a step, ``GB`` a process, and its ``source``: measured or modelled.

    The batch is the largest one that a single process encoded at once. A modelled row gives each
    process a processor like the one that was measured: its seconds are those of a pair, times its
    pairs, and those of adding up the gradients in a ring, in which each process sends twice
    (N - 1) / N of them over a line of ``GIGABITS``. Memory lies on the straight line through the
    batches of one process.
    """
    table = device_table(measurement)
    whole = table[table["encoded"] == WHOLE]
    alone = whole[whole["processes"] == 1].sort_values("batch")
    largest = alone.iloc[-1]
    shared = whole[whole["batch"] == largest["batch"]]
    rows = [_measured_row(row) for _, row in shared.iterrows()]
    slope, intercept = np.polyfit(alone["batch"], alone["GB"], 1)
    gradient = BYTES * measurement["settings"]["trained"]
    for processes in MODELLED:
        pairs = -(-largest["batch"] // processes)
        sent = 2 * (processes - 1) / processes * gradient
        computing = largest["seconds"] / largest["batch"] * pairs
        rows.append(
            {
                "processes": processes,
                "pairs": pairs,
                "seconds": computing + 8 * sent / (GIGABITS * 1e9),
                "GB": intercept + slope * pairs,
                "source": "modelled",
            }
        )
    return pd.DataFrame(rows)


def _measured_row(row: pd.Series) -> dict[str, Any]:
    """A row of the device table in the columns of :func:`scaling_table`."""
    return {
        "processes": row["processes"],
        "pairs": -(-row["batch"] // row["processes"]),
        "seconds": row["seconds"],
        "GB": row["GB"],
        "source": "measured",
    }


def memory_figure(measurement: dict[str, Any]) -> Figure:
    """Memory at the peak of a step of one process, and its seconds, against the batch."""
    table = device_table(measurement)
    table = table[table["processes"] == 1]
    figure, panels = plt.subplots(1, 2, figsize=(7.5, 2.8))
    for axes, measure in zip(panels, ("GB", "seconds"), strict=True):
        sns.lineplot(
            table,
            x="batch",
            y=measure,
            hue="encoded",
            style="encoded",
            markers=True,
            palette=[BLUE, ORANGE],
            ax=axes,
        )
        axes.set(xlabel="pairs in the batch", ylim=(0, None))
        axes.legend(title="", fontsize=8)
    panels[0].set_ylabel("GB beyond the model")
    panels[1].set_ylabel("seconds a step")
    return figure
