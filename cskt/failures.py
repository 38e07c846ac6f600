"""What failed queries have in common: which of the things that a SynthPEDES caption names the wrong
person lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from .data.datasets import PersonRetrievalDataset
from .data.synthetic.mentions import attribute_rows, find_mentions
from .metrics import first_match_ranks
from .probes import interval

# What a caption can name -> the attribute that says which kind it is, and those that say how it
# looks.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gender": ("gender", ()),
    "hair": ("hair", ("hair_colour",)),
    "upper": ("upper", ("upper_colour", "pattern", "pattern_colour")),
    "lower": ("lower", ("lower_colour",)),
    "shoes": ("shoes", ("shoe_colour",)),
    "bag": ("bag", ("bag_colour",)),
    "headwear": ("headwear", ("headwear_colour",)),
    "eyewear": ("eyewear", ()),
    "scarf": ("scarf_colour", ()),
    "umbrella": ("umbrella_colour", ()),
}


def named_parts(data: PersonRetrievalDataset) -> pd.DataFrame:
    """Whether each test caption (a row) names each of :data:`PARTS` (a column) of the person in its
    picture.

    :class:`cskt.errors.CSKTError` for a data set that is not SynthPEDES.
    """
    split = data.test
    shown = [row["shown"] for row in attribute_rows(data, range(len(split.image_paths)))]
    named = [
        {"gender", *find_mentions(text, shown[image])}  # every template says man or woman
        for text, image in zip(split.captions, split.caption_images, strict=True)
    ]
    return pd.DataFrame({part: [part in parts for parts in named] for part in PARTS})


def missed_parts(data: PersonRetrievalDataset, images: Sequence[int]) -> pd.DataFrame:
    """What the person in test image ``images[m]`` lacks of the one whom caption m describes: a
    column for each of :data:`PARTS`, ``""`` where they are alike, ``"kind"`` (another garment, or
    none), ``"look"`` (another colour or pattern)."""
    split, rows = data.test, attribute_rows(data, range(len(data.test.image_paths)))
    table = pd.DataFrame([row["attributes"] for row in rows])
    table["pattern_colour"] = table["pattern_colour"].where(
        table["pattern"] != "plain", ""
    )  # not seen on plain cloth
    wanted = table.iloc[split.caption_images].reset_index(drop=True)
    different = wanted != table.iloc[np.asarray(images)].reset_index(drop=True)
    return pd.DataFrame(
        {
            part: np.select(
                [different[kind], different[list(look)].any(axis=1)], ["kind", "look"], ""
            )
            for part, (kind, look) in PARTS.items()
        }
    )


def failure_table(data: PersonRetrievalDataset, similarity: Tensor, seed: int = 0) -> pd.DataFrame:
    """What the first hits of failed queries have wrong, a row per part, in percent. ``similarity``
    (M, N) of test.

    A caption fails when somebody else is first; captions of people who have no image in the gallery
    are left out. ``named``: of all captions; ``R@1 named``, ``R@1 not``: of captions that name it
    or not; ``failed``: how many failed captions name it; in how many of these the first hit is
    somebody without it (``missed``), as another ``kind`` or another ``look``; ``by chance``: the
    same of a random image of somebody else; ``low``, ``high``: the 95 % interval, over people, of
    ``missed`` less ``by chance``.
    """
    split = data.test
    matched, failed = _outcomes(data, similarity)
    people = split.caption_identities[matched]
    named = named_parts(data)[matched]
    missed = missed_parts(data, similarity.argmax(1).cpu().numpy())[matched]
    by_chance = missed_parts(
        data, _strangers(split.caption_identities, split.image_identities, seed)
    )[matched]
    rows = []
    for part in PARTS:
        says, wrong, chance = (table[part].to_numpy() for table in (named, missed, by_chance))
        asked = says & failed
        difference = (wrong[asked] != "") - (chance[asked] != "").astype(float)
        low, high = interval(difference, people[asked])[1:] if asked.any() else (np.nan, np.nan)
        rows.append(
            {
                "part": part,
                "named": says.mean(),
                "R@1 named": _mean(~failed[says]),
                "failed": int(asked.sum()),
                "R@1 not": _mean(~failed[~says]),
                "missed": _mean(wrong[asked] != ""),
                "kind": _mean(wrong[asked] == "kind"),
                "look": _mean(wrong[asked] == "look"),
                "by chance": _mean(chance[asked] != ""),
                "low": low,
                "high": high,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(
        **{name: 100 * table[name] for name in table if name not in ("part", "failed")}
    )


def failure_findings(data: PersonRetrievalDataset, similarity: Tensor, seed: int = 0) -> list[str]:
    """The same in sentences: how much is named, how much of it the wrong first hits have, which
    parts decided."""
    split = data.test
    matched, failed = _outcomes(data, similarity)
    left_out = np.count_nonzero(~matched)
    said = (
        [
            f"{left_out:,} of {len(matched):,} captions are left out: nobody whom they describe is in the gallery."
        ]
        if left_out
        else []
    )
    if not failed.any() or failed.all():
        return [*said, "Every query failed." if failed.any() else "No query failed."]
    named = named_parts(data).to_numpy()[matched]
    strangers = _strangers(split.caption_identities, split.image_identities, seed)
    wrong, strange = (
        (missed_parts(data, images).to_numpy()[matched] != "") & named
        for images in (similarity.argmax(1).cpu().numpy(), strangers)
    )
    counts, missing = named.sum(1), wrong[failed].sum(1)
    said += [
        f"{failed.sum():,} of {len(failed):,} captions ({100 * failed.mean():.1f}%) have somebody else first. They "
        f"name {counts[failed].mean():.2f} things on average, those that succeed {counts[~failed].mean():.2f}.",
        f"Of these things the person found lacks {missing.mean():.2f}, a random stranger "
        f"{strange[failed].sum(1).mean():.2f}. {100 * np.mean(missing == 0):.1f}% lack nothing: the caption fits both "
        f"people; {100 * np.mean(missing == 1):.1f}% lack one thing.",
    ]
    table = (
        failure_table(data, similarity, seed)
        .query("failed >= 30")
        .rename(columns={"by chance": "chance"})
    )
    for what, rows in (
        ("Missed less often than by chance", table[table["high"] < 0]),
        ("Not told from chance", table[(table["low"] <= 0) & (table["high"] >= 0)]),
        ("Missed more often than by chance", table[table["low"] > 0]),
    ):
        parts = [
            f"{row.part} ({row.missed:.0f}% against {row.chance:.0f}%)" for row in rows.itertuples()
        ]
        said += [f"{what}: {', '.join(parts)}."] if parts else []
    return said


def recall_by_parts(data: PersonRetrievalDataset, similarity: Tensor) -> pd.DataFrame:
    """``R@1`` in percent and the number of ``captions`` by how many ``parts`` they name, without
    those of people who have no image in the gallery."""
    matched, failed = _outcomes(data, similarity)
    counts = named_parts(data)[matched].sum(axis=1)
    grouped = pd.DataFrame({"parts": counts, "R@1": 100.0 * ~failed}).groupby("parts")["R@1"]
    return (
        grouped.agg(["mean", "size"])
        .reset_index()
        .rename(columns={"mean": "R@1", "size": "captions"})
    )


def _outcomes(data: PersonRetrievalDataset, similarity: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(M,) bool: whether the person whom each test caption describes is in the gallery; and, of
    those captions alone, whether somebody else is first."""
    ranks = first_match_ranks(similarity, data.test.caption_identities, data.test.image_identities)
    matched = ranks > 0
    return matched, ranks[matched] != 1


def _strangers(wanted: np.ndarray, identities: np.ndarray, seed: int) -> np.ndarray:
    """A random image of somebody else for each of the wanted identities (M,)."""
    random, images = np.random.default_rng(seed), np.zeros(len(wanted), np.int64)
    left = np.arange(len(wanted))
    while len(left):
        images[left] = random.integers(len(identities), size=len(left))
        left = left[identities[images[left]] == wanted[left]]
    return images


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
