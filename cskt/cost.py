"""What an evaluation costs: the seconds of its steps, and floating point operations (FLOPs)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

ENCODE_QUERIES = "encode queries"
ENCODE_GALLERY = "encode gallery"
RANK = "rank"


class Stopwatch:
    """``seconds`` of wall time by step; a GPU is waited for before the clock is read."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """The time of the block is the step's; of several blocks, their sum."""
        _wait_for_gpu()
        start = time.perf_counter()
        yield
        _wait_for_gpu()
        elapsed = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + elapsed


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of ``call``, which is called twice: what it keeps for later calls is not counted.

    Two for each multiply-add of matrix products, convolutions and attention, as torch's
    :class:`FlopCounterMode` counts them; attention's as whole rectangles, also where a mask hides a
    part. Norms, activations, softmax and look-ups are left out.
    """
    call()
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return counter.get_total_flops()
