"""What is lost without a part of a trained model."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from cskt.evaluation import LoadedSplit, embed_images, embed_texts
from cskt.metrics import rank_features
from cskt.model.cskt import CSKT

ENCODERS = {"vision": embed_images, "text": embed_texts}
EVERY_LAYER = -1


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
                with model.without(tower, part, None if layer == EVERY_LAYER else [layer]):
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
