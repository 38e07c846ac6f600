"""The grids have the paper's rows, and every row is a valid configuration."""

from __future__ import annotations

import dataclasses

import pytest

from cskt import TrainConfig
from cskt.config import METHODS, MINI_LEARNING_RATES
from cskt.errors import ConfigurationError
from cskt.report.grids import GRIDS, TRANSFER, grid_rows


def test_a_grid_has_the_paper_s_rows():
    assert list(grid_rows("prompt depth", "ViT-B-16-quickgelu")) == ["1", "3", "6", "9", "all"]
    methods = {row.get("method", "cskt") for row in grid_rows("components").values()}
    assert methods == set(METHODS)


@pytest.mark.parametrize("grid", [*GRIDS, TRANSFER])
def test_every_row_is_a_configuration(grid):
    usual = TrainConfig.mini()
    for row in grid_rows(grid).values():
        changes = dict(row)
        method = dataclasses.replace(usual.cskt, **changes.pop("cskt", {}))
        dataclasses.replace(usual, cskt=method, **changes)


def test_an_unknown_grid_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigurationError, match="grid 'depth' is unknown.* prompt depth"):
        grid_rows("depth")


def test_every_trained_method_is_searched_at_three_rates_and_has_one_of_them():
    rows = grid_rows("learning rate")
    assert rows["CSKT, 0.01"] == {"method": "cskt", "learning_rate": 0.01}
    assert rows["full fine-tuning, 0.0003, warm-up 2"] == {
        "method": "full",
        "learning_rate": 3e-4,
        "warmup_epochs": 2,
    }
    for method in set(METHODS) - {"zero-shot"}:
        rates = {row["learning_rate"] for row in rows.values() if row["method"] == method}
        assert len(rates) >= 3
        assert MINI_LEARNING_RATES[method] in rates
        assert min(rates) < MINI_LEARNING_RATES[method] < max(rates), "no search ends at its edge"
