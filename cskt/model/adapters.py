"""Dual adapters transferring (DAT, Section 2.3 of the paper): one bottleneck beside the MLP of
every block of both towers.

With D: width -> width / reduction, U back, and a norm LN_3 of the adapter's own::

    h = x + Attn(LN_1(x))
    y = h + MLP(LN_2(h)) + s * U relu(D LN_3(h))                  (5, book/method.md)

s is fixed: 0.1 in the vision tower, 4 in the text tower. :func:`cskt.model.towers.run_layer` is the
block around it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cskt.errors import ConfigurationError
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
            raise ConfigurationError(
                f"reduction must be at most the tower's width {width}, got {reduction}."
            )
        self.scale = scale
        self.norm = nn.LayerNorm(width, eps)
        self.down = projection(width, width // reduction)
        self.up = projection(width // reduction, width)
        if zero_init:
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            # The gradient of `down` needs the normalised rows, as large as x itself and cheap: they
            # are computed again for it rather than kept.
            narrow = checkpoint(self._narrow, x, use_reentrant=False, preserve_rng_state=False)
        else:
            narrow = self._narrow(x)
        return self.scale * self.up(F.relu(narrow))

    def _narrow(self, x: Tensor) -> Tensor:
        return self.down(self.norm(x))
