"""Losses between a batch of image and text features: SDM, the one CSKT is trained with, and CLIP's own (ITC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cskt.config import CSKTError

EPS = 1e-8  # inside the logarithm of the label distribution, as released


def _logits(image_features: Tensor, text_features: Tensor, temperature: float) -> Tensor:
    """Cosine similarities / temperature, rows = images; at least float32, whatever autocast says."""
    if image_features.ndim != 2 or image_features.shape != text_features.shape or len(image_features) == 0:
        raise CSKTError(
            f"image_features and text_features must both be (B, D) with B >= 1, got {tuple(image_features.shape)} and "
            f"{tuple(text_features.shape)}; pass the features of the same pairs."
        )
    dtype = torch.promote_types(image_features.dtype, torch.float32)
    with torch.autocast(image_features.device.type, enabled=False):
        images, texts = F.normalize(image_features.to(dtype), dim=-1), F.normalize(text_features.to(dtype), dim=-1)
        return images @ texts.t() / temperature


def sdm_loss(image_features: Tensor, text_features: Tensor, identities: Tensor, temperature: float = 0.02) -> Tensor:
    """Similarity distribution matching (Jiang & Ye, CVPR 2023): KL(p || q), both directions added, mean over the batch.

    ``image_features``, ``text_features``: (B, D), unnormalised; row i of both is one pair. ``identities``: (B,) int.
    p is the softmax of cosine / temperature, q spreads evenly over the pairs of the same identity. A scalar is
    returned. :class:`CSKTError` if the shapes disagree.
    """
    if identities.shape != image_features.shape[:1]:
        raise CSKTError(f"identities must be ({len(image_features)},), one per pair, got {tuple(identities.shape)}.")
    logits = _logits(image_features, text_features, temperature)
    same = (identities[:, None] == identities[None, :]).to(logits.dtype)
    log_target = (same / same.sum(dim=1, keepdim=True) + EPS).log()  # symmetric relation: serves both directions

    def divergence(rows: Tensor) -> Tensor:
        log_p = F.log_softmax(rows, dim=1)
        return (log_p.exp() * (log_p - log_target)).sum(dim=1).mean()

    return divergence(logits) + divergence(logits.t())


def itc_loss(image_features: Tensor, text_features: Tensor, temperature: float = 0.02) -> Tensor:
    """CLIP's contrastive loss (Radford et al., 2021): cross-entropy to the own pair, mean of both directions.

    Arguments and errors as in :func:`sdm_loss`; identities play no part.
    """
    logits = _logits(image_features, text_features, temperature)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2
