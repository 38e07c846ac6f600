"""Which words of a SynthPEDES caption name which part of the picture, and where that is: the truth
of grounding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cskt.data.datasets import PersonRetrievalDataset
from cskt.errors import DataError
from cskt.synthetic.canvas import PART
from cskt.synthetic.domains import label_map
from cskt.synthetic.identities import COLOURS
from cskt.synthetic.lexicon import LEXICON

_PATTERNS = {"striped", "checked", "plaid", "checkered"}
_HAIR_WORDS = {"long", "short", "blond", "blonde", "fair", "golden"}


def _describing_words() -> set[str]:
    """The words that may stand before a noun: colours, patterns and looks of hair."""
    words = _PATTERNS | _HAIR_WORDS
    for colour in COLOURS:
        for phrase in _phrases(colour):
            words.update(phrase.split())
    return words


def _phrases(key: str) -> Sequence[str]:
    return LEXICON.get(key, (key,))


_DESCRIBING = _describing_words()


@dataclass(frozen=True)
class Mention:
    """Words ``span`` = (first, behind last) of ``caption.split()`` name ``part`` of test image
    ``image``; ``mask`` (256, 128) bool is true where it is."""

    image: int
    identity: int
    caption: str
    span: tuple[int, int]
    part: str
    mask: np.ndarray


def find_mentions(caption: str, shown: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """The words, ``(first, behind last)`` of ``caption.split()``, that name each group of ``shown``
    (group -> kind, of ``attributes.json``): its first noun by the lexicon with the colours and
    patterns before it. Groups that the caption leaves out are missing."""
    words = [word.strip(".,").lower() for word in caption.split()]
    spans = {}
    for group, kind in shown.items():
        if group == "inner":  # a t-shirt under something: its noun may be another garment's
            continue
        nouns = ("hair", "ponytail") if group == "hair" else _phrases(kind)
        span = _find_noun(words, nouns)
        if span is not None:
            noun, behind = span
            spans[group] = (_first_describing(words, noun), behind)
    return spans


def _find_noun(words: list[str], nouns: Sequence[str]) -> tuple[int, int] | None:
    """Where the longest of ``nouns`` (of one or more words) that occurs stands first: its first
    word, and the one behind it."""
    by_length = sorted(nouns, key=lambda noun: len(noun.split()), reverse=True)
    for noun in by_length:
        noun_words = noun.split()
        length = len(noun_words)
        for start in range(len(words)):
            if words[start : start + length] == noun_words:
                return start, start + length
    return None


def _first_describing(words: list[str], noun: int) -> int:
    """The first of the describing words right before ``noun``, or ``noun`` itself."""
    first = noun
    while first > 0 and words[first - 1] in _DESCRIBING:
        first -= 1
        joined = first > 1 and words[first - 1] == "and"
        if joined and words[first - 2] in _DESCRIBING:  # red and white
            first -= 1
    return first


def mentions_of(data: PersonRetrievalDataset, images: Sequence[int]) -> list[Mention]:
    """Every mention of a visible part in the first captions of some test ``images`` (indices) of a
    SynthPEDES domain; a :class:`DataError` for a data set whose parts nobody knows."""
    split = data.test
    domain = data.name.removeprefix("SynthPEDES-")
    mentions = []
    for image, row in zip(images, attribute_rows(data, images), strict=True):
        captions = np.flatnonzero(split.caption_images == image)
        caption = split.captions[int(captions[0])]
        labels = label_map(domain, row)
        for part, span in find_mentions(caption, row["shown"]).items():
            mask = labels == PART[part]
            if mask.any():
                mentions.append(Mention(int(image), row["id"], caption, span, part, mask))
    return mentions


def attribute_rows(data: PersonRetrievalDataset, images: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of ``attributes.json`` of some test images of a SynthPEDES domain; else a
    :class:`DataError`."""
    if not data.synthetic:
        raise DataError(
            f"{data.name} has no attribute table; only SynthPEDES knows what its pictures show."
        )
    rows = json.loads((data.root / "attributes.json").read_text())
    row_of = {row["path"]: row for row in rows}
    paths = [data.test.image_paths[image].relative_to(data.root / "imgs") for image in images]
    return [row_of[path.as_posix()] for path in paths]
