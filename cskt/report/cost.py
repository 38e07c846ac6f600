"""Tables of what an evaluation costs: of runs, and of whole test sets beside published times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cskt.report.efficiency import Measurements, machine_of, short

TEST_SET_TIME = ("test-set-time-cpu", "test-set-time-cuda")  # run files of benchmarks/


def run_costs(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row per run: milliseconds and millions of FLOPs per query and per gallery image, and the
    seconds of the whole test set. A record of before the cost was kept says so."""
    rows = []
    for record in records:
        cost = record.get("cost")
        row = {
            "data": record["dataset"],
            "method": record["method"],
            "precision": record["precision"],
            "seconds for the test set": "not recorded",
        }
        if cost is not None:
            row |= _per_item("query", cost["per_query"])
            row |= _per_item("image", cost["per_image"])
            row["seconds for the test set"] = short(cost["seconds"]["whole"])
            row["of these, ranking"] = short(cost["seconds"]["rank"])
        row["machine"] = machine_of(dict(record))
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def _per_item(item: str, cost: Mapping[str, float]) -> dict[str, str]:
    return {
        f"ms per {item}": short(1e3 * cost["seconds"]),
        f"MFLOPs per {item}": short(cost["flops"] / 1e6),
    }


def times_of_test_sets(published: str | Path, measurements: Measurements) -> pd.DataFrame:
    """Seconds for the whole test sets: those ``published`` (a csv file: method, dataset, seconds,
    hardware, source), a row per method, and below them ours, with random weights and labelled so,
    a row per run file of ``benchmarks/test_set_time.py``.

    Sorted by the time for CUHK-PEDES.
    """
    times = pd.read_csv(published)
    table = times.pivot(index=["method", "hardware", "source"], columns="dataset", values="seconds")
    table = table.sort_values("CUHK-PEDES").map(short).reset_index()
    table.insert(2, "how", "published")
    ours = [_own_row(measurements[name]) for name in TEST_SET_TIME if name in measurements]
    return pd.concat([table, pd.DataFrame(ours)], ignore_index=True)


def _own_row(measurement: Mapping[str, Any]) -> dict[str, str]:
    settings = measurement["settings"]
    row = {
        "method": f"CSKT, this code ({settings['backbone']})",
        "hardware": f"{machine_of(dict(measurement))}, {settings['precision']}",
        "how": f"{settings['weights']} weights, {measurement['rows'][0]['how']}",
        "source": f"run file of {measurement['started'][:10]}",
    }
    for line in measurement["rows"]:
        row[line["what"]] = short(line["seconds"])
    return row
