"""SynthPEDES, the embedded pedestrians, and the generic corpus for pre-training: drawn and
described by rule."""

from cskt.data.synthetic.domains import (
    DOMAINS,
    VERSION,
    label_map,
    synthetic_dataset,
    write_dataset,
)

__all__ = ["DOMAINS", "VERSION", "label_map", "synthetic_dataset", "write_dataset"]
