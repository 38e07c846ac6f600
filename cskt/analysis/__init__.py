"""What a trained model does and how two of them compare: analyses that the core does not know."""

from cskt.paired import Comparison, compare, holm

__all__ = ["Comparison", "compare", "holm"]
