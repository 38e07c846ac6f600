"""Where in a picture the words of a caption are answered, and how often that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from cskt.analysis.attention import patch_grid
from cskt.analysis.intervals import mean_interval
from cskt.analysis.relevance import image_relevance
from cskt.data.augment import normalize
from cskt.errors import ConfigurationError, DataError
from cskt.model.cskt import CSKT
from cskt.synthetic.mentions import Mention


def ground(
    model: CSKT,
    images: Tensor,
    captions: Sequence[str],
    spans: Sequence[tuple[int, int]],
    batch_size: int = 32,
) -> Tensor:
    """(M, rows, columns): where image m of (M, 3, H, W) uint8 answers the words ``spans[m]`` of
    ``captions[m]``.

    A span is ``(first, behind last)`` in ``caption.split()``. What its words say is the caption's
    feature less that of the caption without them; the map is the :func:`image_relevance` for that
    direction.
    """
    without = []
    for caption, (first, behind) in zip(captions, spans, strict=True):
        words = caption.split()
        others = words[:first] + words[behind:]
        without.append(" ".join(others))
    was_training = model.training
    model.eval()
    maps = []
    for start in range(0, len(captions), batch_size):
        batch = slice(start, start + batch_size)
        whole_ids = model.tokenize(list(captions[batch]))
        rest_ids = model.tokenize(without[batch])
        with torch.no_grad():
            whole = model.encode_text(whole_ids, normalize=True)
            rest = model.encode_text(rest_ids, normalize=True)
        pixels = normalize(images[batch].to(model.device))
        relevance = image_relevance(model, pixels, whole - rest)
        maps.append(relevance.cpu())
    model.train(was_training)
    if not maps:
        return torch.zeros(0, *patch_grid(model))
    return torch.cat(maps)


def pointing(maps: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """How well maps (N, rows, columns) find masks (N, H, W) bool: a row for each.

    Map and mask cover the same picture, whatever their sizes. A cell of the map is right if the
    mask touches it. ``pointing``: whether the highest cell is right (Zhang et al., IJCV 2018).
    ``by chance``: expected of a random map. Empty masks are a :class:`DataError`.
    """
    if len(maps) != len(masks):
        raise ConfigurationError(
            f"there must be one mask for each map, got {len(masks)} for {len(maps)}."
        )
    count, rows, columns = maps.shape
    right = _touched_cells(masks, rows, columns)
    sizes = right.sum(axis=1)
    if not sizes.all():
        raise DataError("each mask must touch a cell; leave out parts that are not visible.")
    cells = rows * columns
    highest = maps.reshape(count, cells).argmax(axis=1)
    pointed = right[np.arange(count), highest]
    return pd.DataFrame({"pointing": pointed.astype(float), "by chance": sizes / cells})


def _touched_cells(masks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(N, rows * columns) bool: which cells of a grid the masks (N, H, W) touch."""
    pixels = torch.from_numpy(masks).float()[:, None]
    touched = F.adaptive_max_pool2d(pixels, (rows, columns))
    return touched.bool().flatten(1).numpy()


def grounding_scores(
    models: Mapping[str, CSKT], images: Tensor, mentions: Sequence[Mention]
) -> pd.DataFrame:
    """How well each model grounds mentions in ``images`` (N, 3, H, W) uint8, a split's pictures:
    :func:`pointing`, a row per model and mention, with ``model``, ``part`` and ``identity``."""
    shown = [mention.image for mention in mentions]
    captions = [mention.caption for mention in mentions]
    spans = [mention.span for mention in mentions]
    masks = np.stack([mention.mask for mention in mentions])
    parts = [mention.part for mention in mentions]
    identities = [mention.identity for mention in mentions]
    frames = []
    for name, model in models.items():
        maps = ground(model, images[shown], captions, spans)
        scores = pointing(maps.numpy(), masks)
        scores["model"] = name
        scores["part"] = parts
        scores["identity"] = identities
        frames.append(scores)
    return pd.concat(frames, ignore_index=True)


def grounding_table(scores: pd.DataFrame) -> pd.DataFrame:
    """The pointing game by part and model with 95 % intervals over people, percent, beside chance;
    ``scores`` of :func:`grounding_scores`."""
    rows = []
    for part in sorted(scores["part"].unique()):
        of_part = scores[scores["part"] == part]
        rows.append({"part": part, **_grounding_row(of_part)})
    rows.append({"part": "all", **_grounding_row(scores)})
    return pd.DataFrame(rows)


def _grounding_row(scores: pd.DataFrame) -> dict[str, str | int]:
    models = list(scores["model"].unique())
    mentions = len(scores) // len(models)
    row: dict[str, str | int] = {"mentions": mentions}
    chance = scores["by chance"].mean()
    row["by chance"] = f"{100 * chance:.0f}"
    for model in models:
        of_model = scores[scores["model"] == model]
        percent = 100 * of_model["pointing"]
        mean, low, high = mean_interval(percent, of_model["identity"])
        row[model] = f"{mean:.0f} ({low:.0f} to {high:.0f})"
    return row


def grounding_finding(scores: pd.DataFrame, first: str, second: str) -> str:
    """Which of two models points better, mention by mention, with the 95 % interval of the
    difference over people."""
    of_first = scores[scores["model"] == first].reset_index()
    of_second = scores[scores["model"] == second].reset_index()
    gap = 100 * (of_first["pointing"] - of_second["pointing"])
    mean, low, high = mean_interval(gap, of_first["identity"])
    verdict = "reliable" if low * high > 0 else "not reliable"
    return (
        f"pointing: {first} less {second}: {mean:+.1f} points "
        f"({low:+.1f} to {high:+.1f}), {verdict}."
    )
