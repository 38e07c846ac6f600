"""Which patches of a picture, and which words of a caption, raise their cosine.

Gradient-weighted attention through all layers (Chefer, Gur and Wolf, ICCV 2021): a token's
relevance grows by what passes to it through heads whose weight would raise the cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cskt.analysis.attention import patch_grid
from cskt.model.cskt import CSKT
from cskt.model.recording import Record


def image_relevance(model: CSKT, images: Tensor, directions: Tensor) -> Tensor:
    """(B, rows, columns) >= 0: what each patch contributes to the cosine of each image
    (B, 3, H, W), CLIP-normalised, with its direction (B, D)."""

    def encode(record: Record) -> Tensor:
        return model.encode_image(images.to(model.device), record=record)

    relevance = _rollout(encode, directions)
    of_class_token = relevance[:, 0]
    grid = patch_grid(model)
    patches = slice(1, 1 + math.prod(grid))
    return of_class_token[:, patches].unflatten(1, grid)


def _rollout(encode: Callable[[Record], Tensor], directions: Tensor) -> Tensor:
    """(B, columns, columns): relevance of every column for every other through all layers."""
    record = Record()
    with torch.enable_grad():
        features = F.normalize(encode(record), dim=1)
        cosine = (features * directions.detach()).sum()
        attention = list(record.attention.values())
        gradients = torch.autograd.grad(cosine, attention)
    batch, _, width, _ = attention[0].shape
    identity = torch.eye(width).to(attention[0])
    relevance = identity.expand(batch, -1, -1)
    for weights, gradient in zip(attention, gradients, strict=True):
        effect = weights.detach() * gradient
        raising = effect.clamp(min=0).mean(1)
        relevance = relevance + raising @ relevance
    return relevance


@torch.no_grad()
def word_differences(model: CSKT, caption: str) -> Tensor:
    """(words, D): the L2-normalised feature of a caption less that of the caption without each of
    its words. Its product with an image's feature is what the word adds to their cosine."""
    words = caption.split()
    texts = [caption]
    for place in range(len(words)):
        others = words[:place] + words[place + 1 :]
        texts.append(" ".join(others))
    token_ids = model.tokenize(texts)
    features = model.encode_text(token_ids, normalize=True).float()
    whole = features[:1]
    without_a_word = features[1:]
    return whole - without_a_word
