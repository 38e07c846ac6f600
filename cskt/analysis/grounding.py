"""Where in a picture the words of a caption are answered, and how often that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import hypergeom
from torch import Tensor

from cskt.analysis.attention import patch_grid
from cskt.analysis.intervals import mean_interval
from cskt.analysis.relevance import image_relevance
from cskt.data.augment import normalize
from cskt.errors import ConfigurationError, DataError
from cskt.model.cskt import CSKT
from cskt.synthetic.mentions import Mention

MEASURES = ("pointing", "IoU")


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
    """How well maps (N, rows, columns) find masks (N, H, W) bool: a row for each, ``pointing``,
    ``IoU``, their chance.

    Map and mask cover the same picture, whatever their sizes. A cell of the map is right if the
    mask touches it. ``pointing``: whether the highest cell is right (Zhang et al., IJCV 2018).
    ``IoU``: of the right cells and as many highest ones. ``... by chance``: expected of a random
    map. Empty masks are a :class:`DataError`.
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
    heat = maps.reshape(count, cells)
    highest_first = (-heat).argsort(axis=1, kind="stable")
    ranked = np.take_along_axis(right, highest_first, axis=1)
    common = []
    for row, size in zip(ranked, sizes, strict=True):
        common.append(row[:size].sum())
    both = np.array(common)
    either = 2 * sizes - both
    expected = {size: _expected_iou(size, cells) for size in np.unique(sizes)}
    scores = {
        "pointing": ranked[:, 0].astype(float),
        "IoU": both / either,
        "pointing by chance": sizes / cells,
        "IoU by chance": [expected[size] for size in sizes],
    }
    return pd.DataFrame(scores)


def _touched_cells(masks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(N, rows * columns) bool: which cells of a grid the masks (N, H, W) touch."""
    pixels = torch.from_numpy(masks).float()[:, None]
    touched = F.adaptive_max_pool2d(pixels, (rows, columns))
    return touched.bool().flatten(1).numpy()


def _expected_iou(size: int, cells: int) -> float:
    """Mean IoU of ``size`` right cells with ``size`` random ones of so many ``cells``."""
    both = np.arange(size + 1)
    either = 2 * size - both
    probability = hypergeom.pmf(both, cells, size, size)
    return (probability * both / either).sum()


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
    """Pointing game and IoU by part and model with 95 % intervals over people, percent, beside
    chance; ``scores`` of :func:`grounding_scores`."""
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
    for measure in MEASURES:
        chance = scores[f"{measure} by chance"].mean()
        row[f"{measure} by chance"] = f"{100 * chance:.0f}"
        for model in models:
            of_model = scores[scores["model"] == model]
            percent = 100 * of_model[measure]
            identities = of_model["identity"]
            mean, low, high = mean_interval(percent, identities)
            row[f"{measure}, {model}"] = f"{mean:.0f} ({low:.0f} to {high:.0f})"
    return row


def grounding_findings(scores: pd.DataFrame, first: str, second: str) -> list[str]:
    """Which of two models points better, mention by mention, with the 95 % interval of the
    difference over people."""
    of_first = scores[scores["model"] == first].reset_index()
    of_second = scores[scores["model"] == second].reset_index()
    lines = []
    for measure in MEASURES:
        gap = 100 * (of_first[measure] - of_second[measure])
        mean, low, high = mean_interval(gap, of_first["identity"])
        verdict = "told apart" if low * high > 0 else "not told apart"
        lines.append(
            f"{measure}: {first} less {second}: {mean:+.1f} points "
            f"({low:+.1f} to {high:+.1f}), {verdict}."
        )
    return lines
