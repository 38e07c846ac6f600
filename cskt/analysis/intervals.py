"""Means over people and how sure they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cskt.metrics import bootstrap


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: ArrayLike, groups: ArrayLike) -> Interval:
    """The mean of values (Q,) and its 95 % interval: bootstrap over groups (Q,), such as people,
    whose values are drawn together."""
    numbers = np.asarray(values, float)
    low, high = bootstrap(numbers[:, None], np.asarray(groups))[0]
    return Interval(float(numbers.mean()), float(low), float(high))
