"""CSKT: bidirectional prompts and parallel adapters on a frozen CLIP."""

from cskt.model.cskt import CSKT, load_model

__all__ = ["CSKT", "load_model"]
