"""Dual adapters transferring (DAT, Section 2.3): one bottleneck beside the MLP of every block; and
LoRA to compare."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cskt.errors import CSKTError
from cskt.model.prompts import projection


class ParallelAdapter(nn.Module):
    """``scale * up(relu(down(norm(x))))`` for x (..., width); fixed scale, trained norm (the
    release's ``ln_3``).

    ``zero_init`` starts ``up`` at zero, so that the block begins as the backbone's own.
    """

    def __init__(
        self, width: int, reduction: int, scale: float, zero_init: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        if reduction > width:
            raise CSKTError(
                f"reduction must be at most the tower's width {width}, got {reduction}."
            )
        self.norm, self.scale = nn.LayerNorm(width, eps), scale
        self.down, self.up = (
            projection(width, width // reduction),
            projection(width // reduction, width),
        )
        if zero_init:
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(F.relu(self._inner(x)))

    def _inner(self, x: Tensor) -> Tensor:
        """``down(norm(x))``. The gradient of ``down`` needs the normalised rows, as large as x
        itself and cheap: they are computed again for it rather than kept."""
        if not torch.is_grad_enabled():
            return self.down(self.norm(x))
        return checkpoint(
            lambda rows: self.down(self.norm(rows)),
            x,
            use_reentrant=False,
            preserve_rng_state=False,
        )


class LowRankUpdate(nn.Module):
    """LoRA (Hu et al., ICLR 2022) of one map (width -> rows): adds ``x @ (up @ down).T``, at first
    nothing.

    The update is applied beside the map, not added to its weight, where bf16 would round most of it
    away.

    PEFT does not fit here: it applies its update inside its own attention module only (our towers
    read the weights, and so would silently train nothing), renames the backbone's tensors and needs
    transformers and accelerate.
    """

    def __init__(self, rows: int, width: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = (
            nn.Parameter(torch.empty(rank, width)),
            nn.Parameter(torch.zeros(rows, rank)),
        )
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor, part: slice) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up[part])

    def merged(self) -> Tensor:
        """(rows, width): what to add to the weight for the same map."""
        return self.up @ self.down
