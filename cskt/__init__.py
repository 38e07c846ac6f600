"""cskt: CLIP-based Synergistic Knowledge Transfer for text-based person retrieval (ICASSP 2024)."""

from . import losses, metrics
from .config import CSKTConfig, CSKTError, TrainConfig
from .data.benchmarks import load_dataset
from .evaluation import Run, evaluate
from .model.cskt import CSKT, load_model
from .training import train

__version__ = "0.1.0"
__all__ = ["CSKT", "CSKTConfig", "CSKTError", "Run", "TrainConfig", "evaluate", "load_dataset", "load_model", "losses",
           "metrics", "train"]
