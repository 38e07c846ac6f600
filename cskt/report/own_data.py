"""Runs on data of one's own: a table apart from those of the benchmarks, whose names they never
bear."""

from __future__ import annotations

import pandas as pd

from cskt.config import DATASETS
from cskt.report.tables import summarise


def own_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per data set under another name than the published and drawn ones', method and
    setting, as :func:`cskt.report.tables.summarise` has it; empty where there is no such run."""
    own = runs[~runs["dataset"].isin(DATASETS)]
    return summarise(own).drop(columns="R@1 value", errors="ignore")
