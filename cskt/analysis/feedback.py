"""A query that learns from marked hits, and a picture combined with words: sums of vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cskt.errors import ConfigurationError

EVEN = 0.5  # the words' share in a query of a picture and words


@dataclass(frozen=True)
class Weights:
    """How much the query as asked, the mean of the right pictures and the mean of the wrong ones
    count; the defaults are those of Manning, Raghavan and Schütze, Introduction to Information
    Retrieval (2008), section 9.1.1."""

    asked: float = 1.0
    right: float = 0.75
    wrong: float = 0.15


def refined_query(
    asked: np.ndarray,
    right: np.ndarray,
    wrong: np.ndarray,
    weights: Weights | None = None,
) -> np.ndarray:
    """The query (D,) float32, of length one, that is nearer to pictures marked as right and further
    from those marked as wrong: ``asked + 0.75 mean(right) - 0.15 mean(wrong)`` with the default
    :class:`Weights` (Rocchio, Relevance Feedback in Information Retrieval, 1971).

    ``asked`` (D,), ``right`` (R, D) and ``wrong`` (W, D) are vectors of length one; R and W may be
    0. :class:`CSKTError` where the sum has no direction.
    """
    weights = weights or Weights()
    total = weights.asked * asked
    if len(right):
        total = total + weights.right * right.mean(0)
    if len(wrong):
        total = total - weights.wrong * wrong.mean(0)
    return _of_length_one(total)


def combined_query(picture: np.ndarray, words: np.ndarray, share: float = EVEN) -> np.ndarray:
    """The query (D,) float32, of length one, for a picture and what should be otherwise: ``share *
    words + (1 - share) * picture``, the two being vectors (D,) of length one. It is the sum that
    Saito et al., Pic2Word (CVPR 2023) take as the baseline of composed image retrieval.

    :class:`CSKTError` for a share that is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(f"the words' share must lie between 0 and 1, got {share}.")
    return _of_length_one(share * words + (1 - share) * picture)


def _of_length_one(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    if not length:
        raise ConfigurationError("these marks cancel the query out; take some of them back.")
    return (vector / length).astype(np.float32)
