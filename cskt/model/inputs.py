"""What goes into the towers: images and captions, checked; captions cut to the room that the
prompts leave."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from cskt.errors import ConfigurationError

WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|[^\s\w]+")  # as CLIP's tokenizer cuts


def fit_captions(ids: Tensor, end_token: int, columns: int) -> tuple[Tensor, Tensor]:
    """Captions (B, L) cut to ``columns`` so that each keeps its end token -> (ids (B, min(L,
    columns)), end (B,)).

    A caption whose end token would be lost gets it in its last column, in place of a word. A copy
    is returned.
    """
    ends = (ids == end_token).int().argmax(dim=1)
    last = columns - 1
    too_long = ends[:, None] > last
    fitted = ids[:, :columns].clone()
    last_column = fitted[:, last:]
    fitted[:, last:] = torch.where(too_long, end_token, last_column)
    return fitted, ends.clamp(max=last)


def check_images(images: Any, size: tuple[int, int], dtype: torch.dtype) -> None:
    """:class:`ConfigurationError` unless ``images`` are (B, 3, height, width) in the model's type,
    or in any that autocast takes."""
    is_batch = isinstance(images, Tensor) and images.ndim == 4 and len(images) > 0
    if not is_batch or images.shape[1:] != (3, *size):
        height, width = size
        raise ConfigurationError(
            f"images must be a (B, 3, {height}, {width}) tensor with B >= 1, got "
            f"{_describe(images)}; resize the images or the model (image_size)."
        )
    mixed = images.is_floating_point() and torch.is_autocast_enabled(images.device.type)
    if images.dtype != dtype and not mixed:
        raise ConfigurationError(
            f"images must be CLIP-normalised {dtype}, got {images.dtype}; use .to({dtype})."
        )


def check_token_ids(ids: Any, context: int, vocabulary: int, end_token: int) -> int:
    """The start token, which all captions ``ids`` (B, up to ``context``) share;
    :class:`ConfigurationError` unless they are whole captions of one vocabulary."""
    if not isinstance(ids, Tensor) or ids.ndim != 2 or not len(ids):
        raise _unfit(f"a (B, {context}) tensor with B >= 1, got {_describe(ids)}")
    if not 2 <= ids.shape[1] <= context:
        raise _unfit(f"a (B, {context}) tensor with B >= 1, got {_describe(ids)}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise _unfit(f"integers, got {ids.dtype}")
    first = ids[:, 0]
    starts_well = first != end_token
    ends = (ids[:, 1:] == end_token).any(dim=1) & starts_well
    facts = [
        ids.min(),
        ids.max(),
        ends.all(),
        first[0],
        first.min() == first.max(),
    ]
    facts = [fact.long() for fact in facts]
    low, high, whole, start, alike = torch.stack(facts).tolist()  # a GPU is waited for once
    if low < 0 or high >= vocabulary:
        raise _unfit(f"from 0 to {vocabulary - 1}, got {low} to {high}")
    if not whole:
        row = ends.tolist().index(False)
        raise _unfit(f"captions, but row {row} lacks the end token {end_token} after a start token")
    if not alike:
        tokens = sorted(set(first.tolist()))
        raise _unfit(f"captions with one start token, got {tokens}")
    return start


def words_of(text: str) -> list[str]:
    """The words and marks of a description, lower case, in order, each once."""
    return list(dict.fromkeys(WORD.findall(text.lower())))


def _unfit(fault: str) -> ConfigurationError:
    return ConfigurationError(f"token_ids must be {fault}; use model.tokenize.")


def _describe(value: Any) -> str:
    """A tensor's shape, or what else it is."""
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
