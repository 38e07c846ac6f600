"""Models for inference: LoRA merged, MLP and adapter one pair of matrices, what the prompts
contribute computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from cskt.model.adapters import ParallelAdapter
from cskt.model.lora import LowRankUpdate
from cskt.model.towers import QUICK_GELU, Layer, Tower, linear


@dataclass
class LinearMap:
    """``x @ weight.T + bias`` with matrices of its own."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def to(self, dtype: torch.dtype) -> LinearMap:
        """The same in another type."""
        return LinearMap(self.weight.to(dtype), self.bias.to(dtype))


class FusedLayer(Layer):
    """A layer for inference, its matrices in ``dtype``: LoRA merged, MLP and adapter one pair of
    them behind one norm.

    Exact but for rounding: with n(x) = (x - mean) / deviation both norms are gain * n(x) + shift;
    gains and shifts go into the maps up, and QuickGELU's factor, the block's layer scale and the
    adapter's scale into the maps down."""

    @torch.no_grad()
    def __init__(self, layer: Layer, dtype: torch.dtype) -> None:
        super().__init__(layer.block)
        block, adapter = layer.block, layer.adapter
        expand, self.activation, contract = block.mlp
        self.quick = isinstance(self.activation, QuickGELU)
        self.units = len(expand.bias)
        wide = block.ln_2.weight.dtype  # a frozen matrix may have been cast
        factor = QUICK_GELU if self.quick else 1.0
        scale = getattr(block.ls_2, "gamma", torch.ones_like(contract.bias))
        scale = scale.to(block.ln_2.weight)

        up = _behind_norm(
            block.ln_2, factor * expand.weight.to(wide), factor * expand.bias.to(wide)
        )
        down = LinearMap(
            scale[:, None] / factor * contract.weight.to(wide), scale * contract.bias.to(wide)
        )
        if adapter is not None:
            assert isinstance(adapter, ParallelAdapter)
            beside = _behind_norm(adapter.norm, adapter.down.weight, adapter.down.bias)
            up = LinearMap(torch.cat([up.weight, beside.weight]), torch.cat([up.bias, beside.bias]))
            down = LinearMap(
                torch.cat([down.weight, adapter.scale * adapter.up.weight], dim=1),
                down.bias + adapter.scale * adapter.up.bias,
            )
        inward = block.attn.in_proj_weight.to(wide)
        if layer.lora is not None:
            assert isinstance(layer.lora, LowRankUpdate)
            inward = inward + layer.lora.merged()
        outward = block.attn.out_proj
        self.inward_map = LinearMap(inward, block.attn.in_proj_bias).to(dtype)
        self.outward_map = LinearMap(outward.weight, outward.bias).to(dtype)
        self.up = up.to(dtype)
        self.down = down.to(dtype)

    def inward(self, normed: Tensor, outputs: slice) -> Tensor:
        weight = self.inward_map.weight[outputs]
        bias = self.inward_map.bias[outputs]
        return linear(normed, weight, bias)

    def output(self, rows: Tensor) -> Tensor:
        return self.block.ls_1(self.outward_map(rows))

    def feed_forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, x.shape[1:], eps=self.block.ln_2.eps)
        hidden = self.up(normed)
        if self.quick:
            F.silu(hidden[:, : self.units], inplace=True)
        else:
            hidden[:, : self.units] = self.activation(hidden[:, : self.units])
        F.relu(hidden[:, self.units :], inplace=True)
        return self.down(hidden)


def _behind_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> LinearMap:
    """The map behind ``norm`` as one behind the mean and the deviation alone."""
    return LinearMap(weight * norm.weight, weight @ norm.bias + bias)


class Fusable(nn.Module):
    """A model of two towers that can be fused. Weights changed afterwards are not seen: training
    mode, moving or loading the model, and :meth:`unfuse` undo it.

    ``fused_dtype``: the type of the fused matrices; None: the model is not fused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fused_dtype: torch.dtype | None = None
        self._fused: dict[str, Tower] | None = None
        self._shared: dict[str | int, list[Tensor]] = {}

    def plain_tower(self, name: str) -> Tower:
        """The ``"text"`` or ``"vision"`` tower as it is trained."""
        raise NotImplementedError

    def tower(self, name: str) -> Tower:
        """:meth:`plain_tower`, or the fused one while the model is fused."""
        return self.plain_tower(name) if self._fused is None else self._fused[name]

    @torch.no_grad()
    def fuse(self, dtype: torch.dtype | None = None) -> Self:
        """Prepare for fast inference: adapters and MLPs fused, LoRA merged, what the prompts
        contribute computed once; the blocks' matrices in ``dtype`` (as the norms are, or
        bfloat16)."""
        self.eval().unfuse()
        fused = {}
        for name in ("vision", "text"):
            tower = self.plain_tower(name)
            dtype = dtype or tower.layers[0].block.ln_1.weight.dtype
            layers: list[Layer] = [FusedLayer(layer, dtype) for layer in tower.layers]
            prompts = [rows.detach() for rows in tower.prompts]
            fused[name] = Tower(layers, prompts)
        self._fused = fused
        self.fused_dtype = dtype
        return self

    def unfuse(self) -> Self:
        """The inverse of :meth:`fuse`."""
        self.fused_dtype = None
        self._fused = None
        self._shared = {}
        return self

    @contextlib.contextmanager
    def fused(self, dtype: torch.dtype | None = None) -> Iterator[Self]:
        """Fused within the block; a model that is fused already stays as it is."""
        if self._fused is not None:
            yield self
            return
        try:
            yield self.fuse(dtype)
        finally:
            self.unfuse()

    def once(self, key: str | int, keys_values: Callable[[], list[Tensor]]) -> list[Tensor]:
        """``keys_values()``, remembered under ``key`` while the model is fused."""
        if self._fused is None:
            return keys_values()
        if key not in self._shared:
            with torch.no_grad():
                self._shared[key] = keys_values()
        return self._shared[key]

    def train(self, mode: bool = True) -> Self:
        if mode:
            self.unfuse()
        return super().train(mode)

    def load_state_dict(self, *arguments: Any, **settings: Any) -> Any:
        self.unfuse()
        return super().load_state_dict(*arguments, **settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.unfuse()
        return super()._apply(fn, recurse)
