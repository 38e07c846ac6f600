"""What lies near what: prompts that meet, images and captions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from cskt.errors import ConfigurationError
from cskt.model.cskt import CSKT


@torch.no_grad()
def coupling(model: CSKT) -> pd.DataFrame:
    """How alike own and projected prompts are where they meet: a row per tower and layer, mean
    ``cosine``."""
    prompts = {"vision": model.prompts.vision_rows(), "text": model.prompts.text_rows()}
    rows = []
    for tower, layers in prompts.items():
        is_own = model.prompts.own(tower)
        for layer, both in enumerate(layers):
            own = both[is_own].double()
            projected = both[~is_own].double()
            if len(own) and len(projected):
                cosine = mean_cosine(own, projected)
                rows.append({"tower": tower, "layer": layer, "cosine": cosine})
    return pd.DataFrame(rows, columns=["tower", "layer", "cosine"])


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine of vectors (n, D) with others (m, D)."""
    first = F.normalize(first, dim=1)
    second = F.normalize(second, dim=1)
    cosines = first @ second.t()
    return cosines.mean().item()


def modality_gap(image_features: Tensor, text_features: Tensor) -> float:
    """Distance of the mean image feature (N, D) from the mean text feature (Liang et al., NeurIPS
    2022)."""
    gap = image_features.mean(0) - text_features.mean(0)
    return gap.norm().item()


def plane(features: Tensor, method: str = "PCA", seed: int = 0) -> np.ndarray:
    """(N, 2): features (N, D) in the plane of their two principal components, or by ``"t-SNE"``
    with a fixed seed.

    scikit-learn gives principal components a sign of their own, which a chip would choose
    otherwise."""
    points = features.double().cpu().numpy()
    if method == "PCA":
        from sklearn.decomposition import PCA

        return PCA(2, svd_solver="full").fit_transform(points)
    if method != "t-SNE":
        raise ConfigurationError(f"method must be 'PCA' or 't-SNE', got {method!r}.")
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(points) - 1) / 3)
    placing = TSNE(init="pca", random_state=seed, perplexity=perplexity)
    return placing.fit_transform(points)
