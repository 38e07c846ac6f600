"""SynthPEDES, the embedded pedestrians, and the generic corpus for pre-training: drawn and described by rule."""

from .domains import DOMAINS, label_map, synthetic_dataset, write_dataset

__all__ = ["DOMAINS", "label_map", "synthetic_dataset", "write_dataset"]
