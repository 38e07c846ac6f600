"""Which words of a SynthPEDES caption name which part of the picture, and where that is: the truth
of grounding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cskt.data.benchmarks import PersonRetrievalDataset
from cskt.data.synthetic.canvas import PART
from cskt.data.synthetic.captions import LEXICON
from cskt.data.synthetic.domains import label_map
from cskt.data.synthetic.identities import COLOURS
from cskt.errors import CSKTError

_HAIR = ("hair", "ponytail")
_DESCRIBING = {
    word for key in COLOURS for phrase in LEXICON.get(key, (key,)) for word in phrase.split()
}
_DESCRIBING |= {
    "striped",
    "checked",
    "plaid",
    "checkered",
    "long",
    "short",
    "blond",
    "blonde",
    "fair",
    "golden",
}


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
    found = {}
    for group, kind in shown.items():
        if group == "inner":  # a t-shirt under something: its noun may be another garment's
            continue
        nouns = [
            phrase.split() for phrase in (_HAIR if group == "hair" else LEXICON.get(kind, (kind,)))
        ]
        for noun in sorted(nouns, key=len, reverse=True):
            starts = [i for i in range(len(words)) if words[i : i + len(noun)] == noun]
            if starts:
                found[group] = _first_word(words, starts[0]), starts[0] + len(noun)
                break
    return found


def _first_word(words: list[str], noun: int) -> int:
    first = noun
    while first and words[first - 1] in _DESCRIBING:
        first -= 1
        if (
            first > 1 and words[first - 1] == "and" and words[first - 2] in _DESCRIBING
        ):  # red and white
            first -= 1
    return first


def mentions_of(data: PersonRetrievalDataset, images: Sequence[int]) -> list[Mention]:
    """Every mention of a visible part in the first captions of some test ``images`` (indices) of a
    SynthPEDES domain; :class:`CSKTError` for a data set whose parts nobody knows."""
    split, domain, mentions = data.test, data.name.removeprefix("SynthPEDES-"), []
    for image, row in zip(images, attribute_rows(data, images), strict=True):
        caption = split.captions[int(np.flatnonzero(split.caption_images == image)[0])]
        labels = label_map(domain, row)
        for part, span in find_mentions(caption, row["shown"]).items():
            mask = labels == PART[part]
            if mask.any():
                mentions.append(Mention(int(image), row["id"], caption, span, part, mask))
    return mentions


def attribute_rows(data: PersonRetrievalDataset, images: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of ``attributes.json`` of some test images of a SynthPEDES domain; else a
    :class:`CSKTError`."""
    if not data.synthetic:
        raise CSKTError(
            f"{data.name} has no attribute table; only SynthPEDES knows what its pictures show."
        )
    table = {row["path"]: row for row in json.loads((data.root / "attributes.json").read_text())}
    return [
        table[data.test.image_paths[image].relative_to(data.root / "imgs").as_posix()]
        for image in images
    ]
