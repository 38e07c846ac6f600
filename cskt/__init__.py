"""cskt: CLIP-based Synergistic Knowledge Transfer for text-based person retrieval (ICASSP 2024)."""

from typing import Any

from . import losses, metrics
from .config import CSKTConfig, CSKTError, TrainConfig
from .data.benchmarks import load_dataset
from .evaluation import Run, evaluate
from .model.cskt import CSKT, load_model
from .training import train

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


def __getattr__(name: str) -> Any:
    if name == "Gallery":  # imports Milvus' client: most programs need none
        from .gallery import Gallery

        return Gallery
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
