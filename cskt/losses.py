"""Losses between a batch of image and text features: SDM, the one CSKT is trained with, and CLIP's
own (ITC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cskt.errors import CSKTError

EPS = 1e-8  # inside the logarithm of the label distribution, as released


def _logits(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """Cosine similarities / temperature, rows = images; at least float32, whatever autocast
    says."""
    if images.ndim != 2 or images.shape != texts.shape or len(images) == 0:
        raise CSKTError(
            f"image_features and text_features must both be (B, D) with B >= 1, got {tuple(images.shape)} "
            f"and {tuple(texts.shape)}; pass the features of the same pairs."
        )
    dtype = torch.promote_types(images.dtype, torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        return (
            F.normalize(images.to(dtype), dim=-1)
            @ F.normalize(texts.to(dtype), dim=-1).t()
            / temperature
        )


def sdm_loss(
    image_features: Tensor, text_features: Tensor, identities: Tensor, temperature: float = 0.02
) -> Tensor:
    """Similarity distribution matching (Jiang & Ye, CVPR 2023): KL(p || q), both directions added,
    mean over the batch.

    Features (B, D), unnormalised, row i of both is one pair; ``identities`` (B,) int -> scalar. p
    is the softmax of cosine / temperature, q spreads evenly over the pairs of the same identity.
    :class:`CSKTError` on other shapes.
    """
    if identities.shape != image_features.shape[:1]:
        raise CSKTError(
            f"identities must be ({len(image_features)},), one per pair, got {tuple(identities.shape)}."
        )
    logits = _logits(image_features, text_features, temperature)
    same = (identities[:, None] == identities[None, :]).to(logits.dtype)
    log_target = (
        same / same.sum(dim=1, keepdim=True) + EPS
    ).log()  # symmetric relation: serves both directions
    log_p = torch.stack([F.log_softmax(logits, dim=1), F.log_softmax(logits.t(), dim=1)])
    return (log_p.exp() * (log_p - log_target)).sum(dim=(0, 2)).mean()


def itc_loss(image_features: Tensor, text_features: Tensor, temperature: float = 0.02) -> Tensor:
    """CLIP's contrastive loss (Radford et al., 2021): cross-entropy to the own pair, mean of both
    directions."""
    logits = _logits(image_features, text_features, temperature)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2
