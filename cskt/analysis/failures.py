"""What failed queries have in common: which of the things that a SynthPEDES caption names the wrong
person lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from cskt.analysis.intervals import mean_interval
from cskt.data.datasets import PersonRetrievalDataset
from cskt.metrics import first_match_ranks
from cskt.synthetic.mentions import attribute_rows, find_mentions

# What a caption can name -> the attributes that say what it is and how it looks.
PARTS = {
    "gender": ["gender"],
    "hair": ["hair", "hair_colour"],
    "upper": ["upper", "upper_colour", "pattern", "pattern_colour"],
    "lower": ["lower", "lower_colour"],
    "shoes": ["shoes", "shoe_colour"],
    "bag": ["bag", "bag_colour"],
    "headwear": ["headwear", "headwear_colour"],
    "eyewear": ["eyewear"],
    "scarf": ["scarf_colour"],
    "umbrella": ["umbrella_colour"],
}


def named_parts(data: PersonRetrievalDataset) -> pd.DataFrame:
    """Whether each test caption (a row) names each of :data:`PARTS` (a column) of the person in its
    picture.

    :class:`cskt.errors.CSKTError` for a data set that is not SynthPEDES.
    """
    split = data.test
    rows = attribute_rows(data, range(len(split.image_paths)))
    named = []
    for caption, image in zip(split.captions, split.caption_images, strict=True):
        parts = find_mentions(caption, rows[image]["shown"])
        named.append({part: part in parts for part in PARTS})
    table = pd.DataFrame(named, columns=list(PARTS))
    table["gender"] = True  # every template says man or woman
    return table


def missed_parts(data: PersonRetrievalDataset, images: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """Whether the person in test image ``images[m]`` lacks what the one has whom caption m
    describes, a column for each of :data:`PARTS`: there is another garment, another colour or
    pattern, or none."""
    split = data.test
    rows = attribute_rows(data, range(len(split.image_paths)))
    attributes = pd.DataFrame([row["attributes"] for row in rows])
    # The colour of a pattern is not seen on plain cloth.
    has_pattern = attributes["pattern"] != "plain"
    attributes["pattern_colour"] = attributes["pattern_colour"].where(has_pattern, "")
    described = attributes.iloc[split.caption_images].reset_index(drop=True)
    retrieved = attributes.iloc[np.asarray(images)].reset_index(drop=True)
    differs = described != retrieved
    missed = pd.DataFrame()
    for part, names in PARTS.items():
        missed[part] = differs[names].any(axis=1)
    return missed


def _failed_queries(
    data: PersonRetrievalDataset, similarity: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) bool: whether the person whom each test caption describes is in the gallery; and, of
    those captions alone, whether somebody else is first."""
    split = data.test
    ranks = first_match_ranks(similarity, split.caption_identities, split.image_identities)
    matched = ranks > 0
    failed = ranks[matched] != 1
    return matched, failed


def failure_table(data: PersonRetrievalDataset, similarity: Tensor, seed: int = 0) -> pd.DataFrame:
    """What the first hits of failed queries have wrong, a row per part, in percent. ``similarity``
    (M, N) of test.

    A caption fails when somebody else is first; captions of people who have no image in the gallery
    are left out. ``named``: of all captions; ``R@1 named``, ``R@1 not``: of captions that name it
    or not; ``failed``: how many failed captions name it; in how many of these the first hit is
    somebody without it (``missed``); ``by chance``: the same of a random image of somebody else;
    ``low``, ``high``: the 95 % interval, over people, of ``missed`` less ``by chance``.
    """
    split = data.test
    matched, failed = _failed_queries(data, similarity)
    first_hits = similarity.argmax(1).cpu().numpy()
    strangers = random_strangers(split.caption_identities, split.image_identities, seed)
    named_by_part = named_parts(data)[matched]
    missed_by_part = missed_parts(data, first_hits)[matched]
    stranger_by_part = missed_parts(data, strangers)[matched]
    identities = split.caption_identities[matched]
    rows = []
    for part in PARTS:
        named = named_by_part[part].to_numpy()
        asked = named & failed
        missed = missed_by_part[part].to_numpy()[asked].astype(float)
        by_chance = stranger_by_part[part].to_numpy()[asked].astype(float)
        low = np.nan
        high = np.nan
        if asked.any():
            _, low, high = mean_interval(missed - by_chance, identities[asked])
        row = {
            "part": part,
            "named": 100 * named.mean(),
            "R@1 named": 100 * _mean(~failed[named]),
            "failed": int(asked.sum()),
            "R@1 not": 100 * _mean(~failed[~named]),
            "missed": 100 * _mean(missed),
            "by chance": 100 * _mean(by_chance),
            "low": 100 * low,
            "high": 100 * high,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def recall_by_parts(data: PersonRetrievalDataset, similarity: Tensor) -> pd.DataFrame:
    """``R@1`` in percent and the number of ``captions`` by how many ``parts`` they name, without
    those of people who have no image in the gallery."""
    matched, failed = _failed_queries(data, similarity)
    named = named_parts(data)[matched]
    parts = named.sum(axis=1).rename("parts")
    first = pd.Series(100.0 * ~failed, index=parts.index)
    by_count = first.groupby(parts)
    table = pd.DataFrame({"R@1": by_count.mean(), "captions": by_count.size()})
    return table.reset_index()


def random_strangers(wanted: np.ndarray, identities: np.ndarray, seed: int) -> np.ndarray:
    """(M,) int: for each of the wanted identities (M,) a random image of somebody else, images
    being of ``identities`` (N,)."""
    random = np.random.default_rng(seed)
    images = np.zeros(len(wanted), np.int64)
    left = np.arange(len(wanted))
    while len(left):
        drawn = random.integers(len(identities), size=len(left))
        images[left] = drawn
        is_same = identities[drawn] == wanted[left]
        left = left[is_same]
    return images


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
