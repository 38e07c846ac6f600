"""cskt: CLIP-based Synergistic Knowledge Transfer for text-based person retrieval (ICASSP 2024)."""

from typing import Any

from cskt import losses, metrics
from cskt.config import CSKTConfig, TrainConfig
from cskt.data.datasets import load_dataset
from cskt.errors import CSKTError
from cskt.evaluation import evaluate
from cskt.model.cskt import CSKT, load_model
from cskt.runs import Run
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


def __getattr__(name: str) -> Any:
    if name == "Gallery":  # imports Milvus' client: most programs need none
        from cskt.gallery import Gallery

        return Gallery
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
