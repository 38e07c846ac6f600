"""LoRA (Hu et al., ICLR 2022), to compare with: a low-rank update of a frozen linear map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankUpdate(nn.Module):
    """Adds ``x @ (up @ down).T`` to a map (width -> rows); at first nothing.

    The update is applied beside the map, not added to its weight, where bf16 would round most of it
    away.

    PEFT does not fit here: it applies its update inside its own attention module only (our towers
    read the weights, and so would silently train nothing), renames the backbone's tensors and needs
    transformers and accelerate.
    """

    def __init__(self, rows: int, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, width))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor, rows: slice) -> Tensor:
        """What is added to ``rows`` of the map's outputs, for x (..., width)."""
        return F.linear(F.linear(x, self.down), self.up[rows])

    def merged(self) -> Tensor:
        """(rows, width): what to add to the weight for the same map."""
        return self.up @ self.down
