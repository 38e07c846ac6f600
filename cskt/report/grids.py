"""The grids of runs behind the tables: what varies from row to row, everything else being equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cskt.config import METHODS, MINI, TrainConfig
from cskt.errors import ConfigurationError

Rows = dict[str, dict[str, Any]]  # a row's label -> the settings that make it

BENCHMARK = "benchmark"  # the methods, on one data set
TRANSFER = "transfer"  # the models of that grid, on the test splits of other data sets
GRIDS = (
    BENCHMARK,
    "components",
    "prompt length",
    "prompt depth",
    "training length",
    "learning rate",
    "reduction",
    "adapter scale",
    "identities",
    "noise",
)
_METHODS: Rows = {
    "zero-shot": {"method": "zero-shot"},
    "full fine-tuning": {"method": "full"},
    "CSKT": {},
}
_COMPONENTS: Rows = {
    "none (zero-shot)": {"method": "zero-shot"},
    "text → image prompts": {"method": "prompts-text-to-image"},
    "image → text prompts": {"method": "prompts-image-to-text"},
    "BPT": {"method": "bpt"},
    "vision adapter": {"method": "adapter-vision"},
    "text adapter": {"method": "adapter-text"},
    "DAT": {"method": "dat"},
    "CSKT (BPT + DAT)": {},
    "LoRA": {"method": "lora"},
    "full fine-tuning": {"method": "full"},
}
_TWO_METHODS = {"CSKT": "cskt", "full fine-tuning": "full"}
_LEARNING_RATES: dict[str, tuple[float, ...]] = {
    "full": (1e-4, 3e-4, 1e-3),
    "lora": (1e-3, 3e-3, 1e-2),
    # Where the highest rate was the best on val a higher one was tried, so that no search ends at
    # its edge.
    "bpt": (3e-3, 1e-2, 3e-2, 1e-1),
    "adapter-text": (3e-3, 1e-2, 3e-2, 1e-1),
    "dat": (3e-3, 1e-2, 3e-2, 1e-1),
    "prompts-text-to-image": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "prompts-image-to-text": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
}
_OTHER_LEARNING_RATES = (3e-3, 1e-2, 3e-2)  # of every other method


def grid_rows(grid: str, backbone: str = MINI) -> Rows:
    """The rows of one of :data:`GRIDS` or of :data:`TRANSFER`; settings not named are the
    backbone's defaults.

    Raises:
        ConfigurationError: the grid is unknown.
    """
    rows_of_grids: dict[str, Rows] = {
        BENCHMARK: _METHODS,
        TRANSFER: _METHODS,
        "components": _COMPONENTS,
        "prompt length": _sizes(["prompt_length"], (1, 2, 4, 8, 16)),
        "prompt depth": _prompt_depths(backbone),
        "training length": _training_lengths(TrainConfig.for_backbone(backbone).epochs),
        "learning rate": _learning_rates(),
        "reduction": _sizes(["reduction"], (4, 8, 16, 32)),
        "adapter scale": _sizes(["vision_scale", "text_scale"], (0.1, 0.5, 1.0, 2.0, 4.0)),
        "identities": _shares("train_fraction", (0.05, 0.1, 0.25, 0.5, 1.0)),
        "noise": _shares("noise", (0.0, 0.2, 0.5, 0.8)),
    }
    if grid not in rows_of_grids:
        known = ", ".join([*GRIDS, TRANSFER])
        raise ConfigurationError(f"grid {grid!r} is unknown; choose one of {known}.")
    return rows_of_grids[grid]


def _sizes(fields: list[str], values: Sequence[float]) -> Rows:
    """A row for each value of fields of :class:`cskt.config.CSKTConfig`."""
    return {str(value): {"cskt": dict.fromkeys(fields, value)} for value in values}


def _prompt_depths(backbone: str) -> Rows:
    """Fewer blocks with prompts than all; cskt-mini has fewer blocks."""
    depths = (1, 2, 3, 4) if backbone == MINI else (1, 3, 6, 9)
    return {**_sizes(["prompt_depth"], depths), "all": {}}


def _training_lengths(usual: int) -> Rows:
    """Half, once and twice the ``usual`` number of epochs."""
    rows: Rows = {}
    for label, method in _TWO_METHODS.items():
        for epochs in (usual // 2, usual, 2 * usual):
            rows[f"{label}, {epochs} epochs"] = {"method": method, "epochs": epochs}
    return rows


def _shares(field: str, shares: Sequence[float]) -> Rows:
    """CSKT and full fine-tuning with each share in a field of :class:`cskt.config.TrainConfig`."""
    rows: Rows = {}
    for label, method in _TWO_METHODS.items():
        for share in shares:
            rows[f"{label}, {share:.0%}"] = {"method": method, field: share}
    return rows


def _learning_rates() -> Rows:
    """Every trained method at three rates or more, and full fine-tuning with a longer warm-up: the
    search on val that the embedded default's rates (``config.MINI_LEARNING_RATES``) come from."""
    labels = {"cskt": "CSKT"}
    for label, settings in _COMPONENTS.items():
        if "method" in settings:
            labels[settings["method"]] = label
    rows: Rows = {}
    for method in METHODS:
        if method == "zero-shot":
            continue
        for rate in _LEARNING_RATES.get(method, _OTHER_LEARNING_RATES):
            rows[f"{labels[method]}, {rate:g}"] = {"method": method, "learning_rate": rate}
    rows["full fine-tuning, 0.0003, warm-up 2"] = {
        "method": "full",
        "learning_rate": 3e-4,
        "warmup_epochs": 2,
    }
    return rows
