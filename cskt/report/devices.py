"""Steps on several processes and in pieces, from the run file of ``benchmarks/devices.py``."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cskt.report.style import BLUE, ORANGE, describe, listed

WHOLE = "the batch at once"


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
    most = table.groupby("encoded")["GB"].max()
    return describe(
        figure,
        "memory",
        "Memory at the peak of a training step beyond the model, and seconds a step, against the "
        "size of the batch.",
        f"Two panels, a line for each way of encoding. Most memory, in GB: {listed(most)}.",
    )
