"""The space of prompts and of features: what lies near what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from cskt.analysis.attention import prompt_names
from cskt.errors import ConfigurationError
from cskt.model.cskt import CSKT

SAMPLED_WORDS = 2000  # of the table of words, to tell how near words usually are to each other


@torch.no_grad()
def coupling(model: CSKT) -> pd.DataFrame:
    """How alike own and projected prompts are where they meet: a row per tower and layer, mean
    ``cosine`` and linear ``CKA`` (Kornblith et al., ICML 2019); with n prompts CKA compares two n x
    n matrices, so with few it is coarse."""
    prompts = {"vision": model.prompts.vision_rows(), "text": model.prompts.text_rows()}
    rows = []
    for tower, layers in prompts.items():
        is_own = model.prompts.own(tower)
        for layer, both in enumerate(layers):
            own = both[is_own].double()
            projected = both[~is_own].double()
            if len(own) and len(projected):
                row = {
                    "tower": tower,
                    "layer": layer,
                    "cosine": mean_cosine(own, projected),
                    "CKA": linear_cka(own, projected),
                }
                rows.append(row)
    return pd.DataFrame(rows, columns=["tower", "layer", "cosine", "CKA"])


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine of vectors (n, D) with others (m, D)."""
    first = F.normalize(first, dim=1)
    second = F.normalize(second, dim=1)
    cosines = first @ second.t()
    return cosines.mean().item()


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two sets of n vectors, (n, D) and (n, E): from 0 to 1, nan
    for n = 1."""
    first = first - first.mean(0)
    second = second - second.mean(0)
    between = first.t() @ second
    within_first = first.t() @ first
    within_second = second.t() @ second
    alignment = between.norm() ** 2 / (within_first.norm() * within_second.norm())
    return alignment.item()


@torch.no_grad()
def nearest_words(model: CSKT, count: int = 3) -> pd.DataFrame:
    """The tokens nearest to the prompts that the text tower reads at its first layer, by cosine: a
    row per prompt.

    ``usual`` is how near, in the middle, a token that the backbone knows lies to its own nearest
    other one: a prompt farther away than that lies between words rather than at one, and its words
    mean nothing. Prompts of later layers stand among hidden states, where no table of words exists.
    """
    backbone: Any = model.backbone
    tokenizer: Any = model.tokenizer
    embedding = backbone.token_embedding.weight
    known = _known_words(model, len(embedding)).to(embedding.device)
    table = F.normalize(embedding[known], dim=1)
    usual = _usual_cosine(table)
    names = prompt_names(model, "text")
    prompts = model.prompts.text_rows()[0] if names else torch.empty(0)
    rows = []
    for name, prompt in zip(names, prompts, strict=True):
        cosines = table @ F.normalize(prompt, dim=0)
        near = cosines.topk(count)
        tokens = known[near.indices].tolist()
        words = [tokenizer.decode([token]).strip() for token in tokens]
        nearest = near.values[0].item()
        row = {
            "prompt": name,
            "nearest words": ", ".join(words),
            "cosine": nearest,
            "usual": usual,
            "at a word": "yes" if nearest >= usual else "no",
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=["prompt", "nearest words", "cosine", "usual", "at a word"])


def _known_words(model: CSKT, vocabulary: int) -> Tensor:
    """(words,) int: the tokens that the backbone has learned, without start and end."""
    tokens = sorted(model.known_tokens) if model.known_tokens else range(vocabulary)
    known = torch.tensor(tokens)
    return known[known < model.end_token - 1]


def _usual_cosine(table: Tensor) -> float:
    """The median cosine of a row of the normalised table (words, D) with its nearest other row, on
    a sample of rows."""
    step = max(1, len(table) // SAMPLED_WORDS)
    sample = table[::step]
    cosines = sample @ table.t()
    itself_and_nearest = cosines.topk(2, dim=1).values
    nearest = itself_and_nearest[:, 1]
    return nearest.median().item()


def modality_gap(image_features: Tensor, text_features: Tensor) -> float:
    """Distance of the mean image feature (N, D) from the mean text feature (Liang et al., NeurIPS
    2022)."""
    gap = image_features.mean(0) - text_features.mean(0)
    return gap.norm().item()


def plane(features: Tensor, method: str = "PCA", seed: int = 0) -> np.ndarray:
    """(N, 2): features (N, D) in the plane of their two principal components, or by ``"t-SNE"``
    with a fixed seed.

    A principal component points to where its largest number is positive: its sign is any chip's
    choice otherwise."""
    centred = (features - features.mean(0)).double().cpu()
    if method == "PCA":
        return (centred @ _principal_axes(centred).t()).numpy()
    if method != "t-SNE":
        raise ConfigurationError(f"method must be 'PCA' or 't-SNE', got {method!r}.")
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(centred) - 1) / 3)
    placing = TSNE(init="pca", random_state=seed, perplexity=perplexity)
    return placing.fit_transform(centred.numpy())


def _principal_axes(centred: Tensor) -> Tensor:
    """(2, D): the two directions in which centred features (N, D) vary most."""
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    axes = directions[:2]
    largest = axes.abs().argmax(1, keepdim=True)
    signs = axes.gather(1, largest).sign()
    return axes * signs
