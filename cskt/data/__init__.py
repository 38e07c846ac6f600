"""Data: the benchmarks in their official layouts, the drawn SynthPEDES domains, and the way from
image files to training batches."""

from cskt.data.augment import Augment, normalize
from cskt.data.datasets import PersonRetrievalDataset, Split, load_dataset
from cskt.data.loading import batches, load_images

__all__ = [
    "Augment",
    "PersonRetrievalDataset",
    "Split",
    "batches",
    "load_dataset",
    "load_images",
    "normalize",
]
