"""Dual adapters transferring (DAT, Section 2.3): one bottleneck beside the MLP of every block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cskt.config import CSKTError
from cskt.model.prompts import projection


class ParallelAdapter(nn.Module):
    """``scale * up(relu(down(norm(x))))`` for x (..., width); fixed scale, trained norm (the release's ``ln_3``).

    ``zero_init`` starts ``up`` at zero, so that the block begins as the backbone's own.
    """

    def __init__(self, width: int, reduction: int, scale: float, zero_init: bool = False) -> None:
        super().__init__()
        if reduction > width:
            raise CSKTError(f"reduction must be at most the tower's width {width}, got {reduction}.")
        self.norm, self.scale = nn.LayerNorm(width), scale
        self.down, self.up = projection(width, width // reduction), projection(width // reduction, width)
        if zero_init:
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(F.relu(self.down(self.norm(x))))
