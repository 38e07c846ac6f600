"""Data: the benchmarks in their official layouts, the drawn SynthPEDES domains, and the input
pipeline."""

from cskt.data.benchmarks import PersonRetrievalDataset, Split, load_dataset
from cskt.data.images import load_images
from cskt.data.pipeline import Augment, batches, normalize

__all__ = [
    "Augment",
    "PersonRetrievalDataset",
    "Split",
    "batches",
    "load_dataset",
    "load_images",
    "normalize",
]
