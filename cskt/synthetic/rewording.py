"""The same said in other words: captions of one SynthPEDES domain in the wording of another."""

from __future__ import annotations

from typing import Any

import numpy as np

from cskt.data.datasets import PersonRetrievalDataset
from cskt.errors import ConfigurationError
from cskt.synthetic.captions import LONGEST, compose
from cskt.synthetic.domains import DOMAINS
from cskt.synthetic.identities import Identity
from cskt.synthetic.lexicon import WORDINGS
from cskt.synthetic.mentions import attribute_rows, find_mentions

_TRIES = 60  # until a caption says as much as the one before it; nearly all need fewer than ten
_LOGO_WORDS = {"logo", "print", "emblem"}


def reworded(data: PersonRetrievalDataset, domain: str) -> tuple[str, ...]:
    """Each caption of test in the wording of ``domain`` (``"A"``, ``"B"`` or ``"C"``): of the same
    image and about the same attributes in the same colours, with that domain's words and
    sentences; in the order of ``data.test.captions`` and always the same.

    The domain's own wording is allowed: it says the same once more, which is what to compare
    another wording with. Raises :class:`DataError` for data without an attribute table, and
    :class:`ConfigurationError` for a domain that does not exist.
    """
    if domain not in WORDINGS:
        raise ConfigurationError(f"{domain!r} is no domain of SynthPEDES; choose A, B or C.")
    split = data.test
    rows = attribute_rows(data, range(len(split.image_paths)))
    captions = []
    for index, caption in enumerate(split.captions):
        row = rows[int(split.caption_images[index])]
        rng = np.random.default_rng((DOMAINS[domain].seed, index))
        captions.append(_reworded(caption, row, domain, rng))
    return tuple(captions)


def _reworded(caption: str, row: dict[str, Any], domain: str, rng: np.random.Generator) -> str:
    """One of some tries: the first that is not too long and tells view and logo where the
    ``caption`` does, else the shortest (a domain of few words always tells the view of a short
    one)."""
    groups = _named_groups(caption, row["shown"])
    person = Identity(**row["attributes"])
    extras = _extras(caption, row["view"])
    tries = []
    for _ in range(_TRIES):
        text = compose(person, row["shown"], groups, row["view"], WORDINGS[domain], rng)
        if _extras(text, row["view"]) == extras and len(text.split()) <= LONGEST:
            return text
        tries.append(text)
    return min(tries, key=len)


def _named_groups(caption: str, shown: dict[str, str]) -> set[str]:
    """The attribute groups of an image that its caption names."""
    words = caption.lower().split()
    groups = set(find_mentions(caption, shown))
    if shown.get("hair") == "bald" and "bald" in words:
        groups.add("hair")
    if "inner" in shown and "over" in words:  # a jacket over a t-shirt
        groups.add("inner")
    return groups


def _extras(caption: str, view: str) -> tuple[bool, bool]:
    """Whether a caption tells the view, and whether a logo."""
    text = caption.lower()
    tells_view = False
    for wording in WORDINGS.values():
        for phrase in wording.views[view]:
            tells_view = tells_view or phrase in text
    words = {word.strip(".,") for word in text.split()}
    return tells_view, not _LOGO_WORDS.isdisjoint(words)
