"""What a trained model loses without some of its parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pandas as pd
from torch import Tensor, nn

from cskt.errors import ConfigurationError
from cskt.evaluation import LoadedSplit, embed_images, embed_texts
from cskt.metrics import rank_features
from cskt.model.adapters import ParallelAdapter
from cskt.model.cskt import CSKT

PARTS = ("own prompts", "projected prompts", "adapter")
ENCODERS = {"vision": embed_images, "text": embed_texts}
EVERY_LAYER = -1
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


def knock_out(model: CSKT, split: LoadedSplit, precision: str = "auto") -> pd.DataFrame:
    """R@1 (text to image, percent) without each part at each layer, and at all layers at once: a
    row per tower, part and layer (-1: all), ``lost`` points against the whole model."""
    features = {}
    for tower, embed in ENCODERS.items():
        features[tower] = embed(model, split, precision)
    intact = _recall(features, split)
    rows = []
    for tower, embed in ENCODERS.items():
        for part, layers in _removable(model, tower).items():
            for layer in layers:
                with without(model, tower, part, layers=None if layer == EVERY_LAYER else [layer]):
                    changed = embed(model, split, precision)
                recall = _recall({**features, tower: changed}, split)
                row = {
                    "tower": tower,
                    "part": part,
                    "layer": layer,
                    "R@1": recall,
                    "lost": intact - recall,
                }
                rows.append(row)
    return pd.DataFrame(rows, columns=["tower", "part", "layer", "R@1", "lost"])


def extremes(lost: pd.DataFrame) -> dict[str, Any]:
    """Of :func:`knock_out`, the part that costs ``most`` and the one that costs ``least`` when it
    is taken out at all layers, and how many points: ``most_lost``, ``least_lost``. Dashes and NaN
    of a model that has no parts."""
    everywhere = lost[lost["layer"] == EVERY_LAYER].sort_values("lost")
    facts: dict[str, Any] = {}
    for name, place in (("least", 0), ("most", -1)):
        facts[name], facts[f"{name}_lost"] = "—", float("nan")
        if len(everywhere):
            row = everywhere.iloc[place]
            facts[name] = f"the {row['tower']} tower's {row['part']}"
            facts[f"{name}_lost"] = float(row["lost"])
    return facts


def _removable(model: CSKT, tower: str) -> dict[str, list[int]]:
    """The parts that a tower has, each with the layers where it stands, all of them at once
    first."""
    is_own = model.prompts.own(tower)
    adapters = model.vision_adapters if tower == "vision" else model.text_adapters
    depths = {
        "own prompts": model.prompts.depth if is_own.any() else 0,
        "projected prompts": model.prompts.depth if (~is_own).any() else 0,
        "adapter": len(adapters),
    }
    removable = {}
    for part, depth in depths.items():
        if depth > 0:
            removable[part] = [EVERY_LAYER, *range(depth)]
    return removable


def _recall(features: dict[str, Tensor], split: LoadedSplit) -> float:
    """R@1 of the captions, by the features of both towers."""
    captions = split.split.caption_identities
    images = split.split.image_identities
    metrics = rank_features(features["text"], features["vision"], captions, images)
    return metrics["R@1"]
