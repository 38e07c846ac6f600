"""Which differences are larger than the noise: paired comparisons on the same queries
(:mod:`cskt.paired`), corrected for how many there are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cskt.errors import DataError
from cskt.paired import compare, holm
from cskt.report.run_files import METHOD_NAMES
from cskt.report.settings import SETTING, hide_shared, require_one_setting

LEVEL = 0.05  # of Holm's p, below which a difference counts as reliable
RANKS_MISSING = "ranks not stored"
OTHER_QUERIES = "not the same queries"
ONE_SEED = ", of these models"  # a side of one run says nothing of other seeds
_PAIRS = tuple(itertools.combinations(("cskt", "full", "zero-shot"), 2))


def paired_differences(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> pd.DataFrame:
    """For each pair of frames of runs, the seeds of one row each: R@1 of the first less that of the
    second, with its 95 % interval, and whether they differ reliably, by Holm's p over all pairs.

    A cell says so where a run file has no ranks beside it or the queries are not the same.

    Raises:
        RunError: a pair differs in setting, or stored ranks cannot be read.
    """
    lines = []
    for runs, reference in pairs:
        lines.append(_difference(runs, reference))
    compared = [line for line in lines if "p" in line]
    corrected = holm([line["p"] for line in compared])
    for line, p in zip(compared, corrected, strict=True):
        answer = "yes" if p < LEVEL else "no"
        line["reliable"] = f"{answer} (p {p:.2g}){line['scope']}"
    return pd.DataFrame(lines, columns=["R@1, points", "reliable"])


def _difference(runs: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    """A line of :func:`paired_differences`, its ``p`` not corrected."""
    require_one_setting(pd.concat([runs[SETTING], reference[SETTING]]))
    ours = [Path(path) for path in runs["path"]]
    theirs = [Path(path) for path in reference["path"]]
    if not all(path.with_suffix(".npz").is_file() for path in ours + theirs):
        return {"R@1, points": RANKS_MISSING, "reliable": ""}
    try:
        comparison = compare(ours, theirs)
    except DataError:
        return {"R@1, points": OTHER_QUERIES, "reliable": ""}
    row = comparison.table.loc["R@1"]
    return {
        "R@1, points": f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})",
        "p": row["p"],
        "scope": ONE_SEED if min(comparison.seeds) == 1 else "",
    }


def method_differences(runs: pd.DataFrame) -> pd.DataFrame:
    """CSKT, full fine-tuning and the bare backbone against each other, on every data set and under
    every setting; one correction for all of them.

    Args:
        runs: from :func:`cskt.report.run_files.run_table`.
    """
    pairs = []
    lines = []
    for _, group in runs.groupby(["data", "epochs", "selection", *SETTING], sort=False):
        for first, second in _PAIRS:
            ours = group[group["method"] == first]
            theirs = group[group["method"] == second]
            if ours.empty or theirs.empty:
                continue
            pairs.append((ours, theirs))
            line = group[["data", "epochs", "selection", *SETTING]].iloc[0].to_dict()
            line["compared"] = f"{METHOD_NAMES[first]} less {METHOD_NAMES[second]}"
            line["seeds"] = f"{len(ours)}, {len(theirs)}"
            lines.append(line)
    if not lines:
        return pd.DataFrame()
    table = hide_shared(pd.DataFrame(lines), runs)
    return table.join(paired_differences(pairs))
