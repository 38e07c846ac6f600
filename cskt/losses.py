"""Losses between a batch of image and text features: SDM, the one CSKT is trained with, and CLIP's
own (ITC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cskt.errors import ConfigurationError

EPS = 1e-8  # inside the logarithm of the label distribution, as released


def sdm_loss(
    image_features: Tensor, text_features: Tensor, identities: Tensor, temperature: float = 0.02
) -> Tensor:
    """Similarity distribution matching (SDM; Jiang and Ye, CVPR 2023)::

        p_ij = exp(cos(f_i, g_j) / temperature) / sum_k exp(cos(f_i, g_k) / temperature)
        q_ij = [y_i = y_j] / sum_k [y_i = y_k]                        (7, book/method.md)
        loss = mean_i sum_j p_ij log(p_ij / (q_ij + EPS)), both directions added    (8)

    Features f and g (B, D), unnormalised, row i of both is one pair; ``identities`` y (B,) int ->
    scalar. :class:`ConfigurationError` on other shapes.
    """
    if identities.shape != image_features.shape[:1]:
        raise ConfigurationError(
            f"identities must be ({len(image_features)},), one per pair, got "
            f"{tuple(identities.shape)}."
        )
    logits = _logits(image_features, text_features, temperature)
    same = (identities[:, None] == identities[None, :]).to(logits.dtype)
    q = same / same.sum(dim=1, keepdim=True)
    log_q = (q + EPS).log()  # symmetric relation: serves both directions
    image_to_text = F.log_softmax(logits, dim=1)
    text_to_image = F.log_softmax(logits.t(), dim=1)
    log_p = torch.stack([image_to_text, text_to_image])
    return (log_p.exp() * (log_p - log_q)).sum(dim=(0, 2)).mean()


def itc_loss(image_features: Tensor, text_features: Tensor, temperature: float = 0.02) -> Tensor:
    """CLIP's contrastive loss (Radford et al., 2021): cross-entropy to the own pair, mean of both
    directions. Features (B, D) -> scalar."""
    logits = _logits(image_features, text_features, temperature)
    own = torch.arange(len(logits), device=logits.device)
    image_to_text = F.cross_entropy(logits, own)
    text_to_image = F.cross_entropy(logits.t(), own)
    return (image_to_text + text_to_image) / 2


def _logits(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """Cosine similarities / temperature, rows = images; at least float32, whatever autocast
    says."""
    if images.ndim != 2 or images.shape != texts.shape or len(images) == 0:
        raise ConfigurationError(
            f"image_features and text_features must both be (B, D) with B >= 1, got "
            f"{tuple(images.shape)} and {tuple(texts.shape)}; pass the features of the same pairs."
        )
    dtype = torch.promote_types(images.dtype, torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        image_units = F.normalize(images.to(dtype), dim=-1)
        text_units = F.normalize(texts.to(dtype), dim=-1)
        return image_units @ text_units.t() / temperature
