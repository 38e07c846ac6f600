"""cskt: CLIP-based Synergistic Knowledge Transfer for text-based person retrieval (ICASSP 2024).

The public names below are imported when they are first used, so that ``import cskt`` is quick and
a program that only reads run files needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cskt import losses, metrics
    from cskt.config import CSKTConfig, TrainConfig
    from cskt.data.datasets import load_dataset
    from cskt.errors import CSKTError
    from cskt.evaluation import evaluate
    from cskt.model.cskt import CSKT, load_model
    from cskt.runs import Run
    from cskt.search.gallery import Gallery
    from cskt.training import train

__version__ = "0.1.0"
__all__ = [
    "CSKT",
    "CSKTConfig",
    "CSKTError",
    "Gallery",
    "Run",
    "TrainConfig",
    "evaluate",
    "load_dataset",
    "load_model",
    "losses",
    "metrics",
    "train",
]

_HOMES = {
    "CSKT": "cskt.model.cskt",
    "CSKTConfig": "cskt.config",
    "CSKTError": "cskt.errors",
    "Gallery": "cskt.search.gallery",
    "Run": "cskt.runs",
    "TrainConfig": "cskt.config",
    "evaluate": "cskt.evaluation",
    "load_dataset": "cskt.data.datasets",
    "load_model": "cskt.model.cskt",
    "train": "cskt.training",
}
_MODULES = ("losses", "metrics")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cskt.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
