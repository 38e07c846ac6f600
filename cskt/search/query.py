"""What a gallery is asked: descriptions and pictures, and the unit vectors that stand for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from cskt.data.augment import normalize
from cskt.errors import ConfigurationError
from cskt.model.cskt import CSKT

MAX_QUERY = 500  # characters
ENCODED = 256  # images encoded at a time
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def check_description(text: str) -> str:
    """A description with single blanks; :class:`CSKTError` for an empty or over-long one."""
    text = " ".join(text.split())
    if not text:
        raise ConfigurationError(
            "type a description first, for example: a man in a grey hoodie with a red backpack."
        )
    if len(text) > MAX_QUERY:
        raise ConfigurationError(
            f"the description has {len(text)} characters; shorten it to {MAX_QUERY}."
        )
    return text


def remarks(model: CSKT, text: str) -> list[str]:
    """What to know of a description: words that the backbone has never seen, or that are too many
    for it."""
    sentences = []
    unknown = model.unknown_words(text)
    if unknown:
        sentences.append(f"This backbone has never seen: {', '.join(unknown)}.")
    if not model.reads_all(text):
        sentences.append(
            f"Only the first {model.max_tokens} tokens of a description are read; "
            "the rest has no effect."
        )
    return sentences


@contextlib.contextmanager
def encoding(model: CSKT, precision: str, once: bool = False) -> Iterator[CSKT]:
    """Within the block, the model encodes in a precision (``"fp32"`` or ``"bf16"``), native or not.

    It is fused for inference, unless that takes longer than it saves: for one query (``once``) in
    fp32. A model that its owner has fused in another precision is unfused.
    """
    dtype = DTYPES[precision]
    was_training = model.training
    if model.fused_dtype not in (None, dtype):
        model.unfuse()
    model.eval()
    try:
        if once and dtype == torch.float32:
            yield model
        else:
            with model.fused(dtype):
                yield model
    finally:
        model.train(was_training)


@torch.inference_mode()
def encode_description(model: CSKT, precision: str, text: str) -> np.ndarray:
    """The L2-normalised feature (D,) float32 of a description, see :func:`check_description`."""
    checked = check_description(text)
    with encoding(model, precision, once=True):
        features = model.encode_text(model.tokenize([checked]), normalize=True)
    return features[0].float().cpu().numpy()


@torch.inference_mode()
def encode_pixels(
    model: CSKT, precision: str, pixels: np.ndarray, once: bool = False
) -> np.ndarray:
    """Images (N, 3, H, W) uint8 at the model's size -> L2-normalised features (N, D) float32."""
    features = []
    with encoding(model, precision, once):
        for batch in torch.from_numpy(pixels).split(ENCODED):
            encoded = model.encode_image(normalize(batch.to(model.device)), normalize=True)
            features.append(encoded.float().cpu().numpy())
    return np.concatenate(features)


def unit_vector(vector: np.ndarray, size: int) -> np.ndarray:
    """``vector`` (size,) of length one, float32; :class:`CSKTError` where it has no direction."""
    length = np.linalg.norm(vector)
    if len(vector) != size or not np.isfinite(length) or not length:
        raise ConfigurationError(
            f"the vector must hold {size} finite numbers, not all 0; got {vector.shape}."
        )
    return (vector / length).astype(np.float32)
