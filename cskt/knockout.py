"""A model without some of its parts, to see what they contribute."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import Tensor, nn

from cskt.errors import ConfigurationError
from cskt.model.adapters import ParallelAdapter
from cskt.model.cskt import CSKT

PARTS = ("own prompts", "projected prompts", "adapter")
PromptHook = Callable[[nn.Module, tuple[Any, ...], list[Tensor]], list[Tensor]]


@contextlib.contextmanager
def without(
    model: CSKT, tower: str, *parts: str, layers: Collection[int] | None = None
) -> Iterator[CSKT]:
    """Within the block, the model without some of :data:`PARTS` of its ``"vision"`` or ``"text"``
    tower, at some layers (None: at all).

    Projected prompts are those that come from the other tower: in vision, T2V(t). Prompts are taken
    from the rows that the tower is about to read, by a forward hook; an adapter's scale is 0.
    Blocks may be nested for different towers. A part that the model does not have is no error;
    :class:`ConfigurationError` for another name or layer.
    """
    every_layer = range(len(model.blocks(tower)))
    layers = every_layer if layers is None else layers
    known = tower in ("vision", "text") and set(parts) <= set(PARTS)
    if not known or not set(layers) <= set(every_layer):
        unknown = " or ".join(map(repr, parts))
        known_parts = ", ".join(map(repr, PARTS))
        raise ConfigurationError(
            f"there is no {unknown} at layers {list(layers)} of the {tower!r} tower; give 'vision' "
            f"or 'text', some of {known_parts}, and layers from 0 to {len(every_layer) - 1}."
        )
    model.unfuse()
    with contextlib.ExitStack() as stack:
        stack.callback(model.unfuse)
        hook = model.prompts.register_forward_hook(_row_filter(model, tower, parts, layers))
        stack.callback(hook.remove)
        if "adapter" in parts:
            adapters = model.vision_adapters if tower == "vision" else model.text_adapters
            stack.enter_context(_silent(adapters, layers))
        yield model


def _row_filter(
    model: CSKT, tower: str, parts: Collection[str], layers: Collection[int]
) -> PromptHook:
    """A forward hook of ``model.prompts`` that takes a tower's own or its projected rows out."""

    def kept_rows(
        module: nn.Module, arguments: tuple[Any, ...], rows: list[Tensor]
    ) -> list[Tensor]:
        if arguments[0] != tower:
            return rows
        own = model.prompts.own(tower)
        keep_own = own & ("own prompts" not in parts)
        keep_projected = ~own & ("projected prompts" not in parts)
        keep = keep_own | keep_projected
        kept = []
        for layer, prompts in enumerate(rows):
            kept.append(prompts[keep] if layer in layers else prompts)
        return kept

    return kept_rows


@contextlib.contextmanager
def _silent(adapters: nn.ModuleList, layers: Collection[int]) -> Iterator[None]:
    """Within the block, the adapters of some layers add nothing."""
    scales = {}
    for layer, adapter in enumerate(adapters):
        if layer in layers:
            assert isinstance(adapter, ParallelAdapter)
            scales[adapter] = adapter.scale
            adapter.scale = 0.0
    try:
        yield
    finally:
        for adapter, scale in scales.items():
            adapter.scale = scale
