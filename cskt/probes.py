"""What is lost without a part of a trained model."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from .evaluation import LoadedSplit, embed_images, embed_texts
from .metrics import rank_features
from .model.cskt import CSKT, PARTS


def knock_out(
    model: CSKT, split: LoadedSplit, precision: str = "auto", whole: bool = True
) -> pd.DataFrame:
    """R@1 (text to image, percent) without each part at each layer, and with ``whole`` at all
    layers at once: a row per tower, part and layer (-1: all), ``lost`` points against the whole
    model."""
    encode = {"vision": embed_images, "text": embed_texts}
    features = {tower: encode[tower](model, split, precision) for tower in encode}

    def recall(features: dict[str, Tensor]) -> float:
        return rank_features(
            features["text"],
            features["vision"],
            split.split.caption_identities,
            split.split.image_identities,
        )["R@1"]

    rows, intact = [], recall(features)
    for tower in encode:
        own, adapters = model.prompts.own(tower), getattr(model, f"{tower}_adapters")
        blocks = len(
            (model.backbone.visual if tower == "vision" else model.backbone).transformer.resblocks
        )
        held = {
            "own prompts": model.prompts.depth * bool(own.any()),
            "adapter": len(adapters),
            "projected prompts": model.prompts.depth * bool((~own).any()),
        }
        for part in PARTS:
            for layer in [-1] * (whole and held[part] > 0) + list(range(min(held[part], blocks))):
                with model.without(tower, part, None if layer < 0 else [layer]):
                    found = recall({**features, tower: encode[tower](model, split, precision)})
                rows.append(
                    {
                        "tower": tower,
                        "part": part,
                        "layer": layer,
                        "R@1": found,
                        "lost": intact - found,
                    }
                )
    return pd.DataFrame(rows, columns=["tower", "part", "layer", "R@1", "lost"])
