"""What is odd about the captions of a data set: those that are empty or cut, that stand under
several identities, or that are no English sentences."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cskt.data.datasets import Split
from cskt.data.findings import Findings, some
from cskt.data.records import SPLITS, Annotation

CONTEXT = 77  # CLIP's text length in tokens, start and end included
CODE = re.compile(
    r"[{}<>\\=|_`]|\[\]|\w\(|&#?\w+;|\w;\w|https?:|www\.|\b(?:def|import|elif|null|NaN)\b"
)  # what programs and pages have, and sentences about people have not

Encode = Callable[[str], Sequence[int]]
Progress = Callable[[Iterable, str, int], Iterable]


class _Plain(dict[int, str]):
    """For ``str.translate``: punctuation, signs and all kinds of spaces become a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = unicodedata.category(character)[0] in "LMN"  # letters, their marks, digits
        self[code] = character if kept else " "
        return self[code]


_PLAIN = _Plain()


def normalised(caption: str) -> str:
    """A caption without case and punctuation, one space between words: what two captions have in
    common that say the same."""
    plain = unicodedata.normalize("NFKC", caption).casefold().translate(_PLAIN)
    return " ".join(plain.split())


def ambiguous_captions(split: Split) -> np.ndarray:
    """(M,) bool: whether a caption's words (see :func:`normalised`) stand under several identities
    of the split, so that no model can know which one is meant."""
    identities = defaultdict(set)
    texts = [normalised(caption) for caption in split.captions]
    for text, identity in zip(texts, split.caption_identities.tolist(), strict=True):
        identities[text].add(identity)
    return np.array([len(identities[text]) > 1 for text in texts], dtype=bool)


class _Caption(NamedTuple):
    """A caption, whose it is, the number of its record or row, and its length in tokens."""

    text: str
    identity: int
    place: int
    length: int


def audit_captions(
    annotation: Annotation, encode: Encode, prompts: int, progress: Progress, findings: Findings
) -> None:
    """Check every caption; ``encode`` and ``prompts`` as :func:`cskt.data.verify.verify` has them.
    An empty caption is a fault, anything else a note."""
    captions: dict[str, list[_Caption]] = {split: [] for split in SPLITS}
    records = annotation.records
    for index, record in progress(records.items(), "captions", len(records)):
        empty = []
        for number, text in enumerate(record.captions):
            length = len(encode(text))
            if length == 0:
                empty.append(number + 1)
            place = annotation.place_of(index, number)
            captions[record.split].append(_Caption(text, record.identity, place, length))
        if empty:
            findings.fault(
                "caption",
                f"{annotation.unit} {annotation.place_of(index, empty[0] - 1)}",
                f"empty captions: {len(empty)} of {len(record.captions)} (number {some(empty)}); "
                "write or remove them",
            )
    for split in SPLITS:
        for before in dict.fromkeys((0, prompts)):
            _note_cut(split, captions[split], encode, before, annotation.unit, findings)
    groups = {split: _same_words(captions[split]) for split in SPLITS}
    for split in SPLITS:
        _note_ambiguous(split, groups[split], annotation.unit, findings)
    for split in SPLITS:
        _note_near_duplicates(split, groups[split], annotation.unit, findings)
    _note_oddities(captions, annotation.unit, findings)


def _note_cut(
    split: str,
    captions: list[_Caption],
    encode: Encode,
    prompts: int,
    unit: str,
    findings: Findings,
) -> None:
    """Captions that do not fit behind the prompts, and the share of the words that is lost."""
    room = CONTEXT - 2 - prompts  # start and end take two
    cut = [caption for caption in captions if caption.length > room]
    if not cut:
        return
    lost = sum(_words_beyond(room, caption.text.split(), encode) for caption in cut)
    words = sum(len(caption.text.split()) for caption in captions)
    longest = max(cut, key=_length_and_place)
    tokens = f"{CONTEXT - prompts} tokens"
    if prompts:
        tokens += f", which {prompts} prompts leave"
    findings.note(
        "caption",
        split,
        f"captions over {tokens}: {len(cut):,} (longest {longest.length + 2}, {unit} "
        f"{longest.place}); they are cut, and {lost / words:.2%} of the words are lost",
        [caption.place for caption in cut],
    )


def _length_and_place(caption: _Caption) -> tuple[int, int]:
    return caption.length, caption.place


def _words_beyond(room: int, words: list[str], encode: Encode) -> int:
    """How many of a caption's words are not whole within ``room`` tokens."""

    def tokens(count: int) -> int:
        return len(encode(" ".join(words[:count])))

    kept = bisect_right(range(1, len(words) + 1), room, key=tokens)
    return len(words) - kept


def _same_words(captions: list[_Caption]) -> list[list[_Caption]]:
    """Groups of at least two captions that are equal but for case, punctuation and spaces."""
    groups = defaultdict(list)
    for caption in captions:
        groups[normalised(caption.text)].append(caption)
    groups.pop("", None)  # no words to share
    return [group for group in groups.values() if len(group) > 1]


def _note_ambiguous(
    split: str, groups: list[list[_Caption]], unit: str, findings: Findings
) -> None:
    for group in groups:
        people = sorted({caption.identity for caption in group})
        if len(people) > 1:
            places = [caption.place for caption in group]
            findings.note(
                "ambiguous",
                split,
                f"the same caption on {len(people)} identities ({some(people)}; {unit}s "
                f"{some(places)}): {group[0].text!r:.120}; say what tells them apart, or evaluate "
                "--without-ambiguous",
                places,
            )


def _note_near_duplicates(
    split: str, groups: list[list[_Caption]], unit: str, findings: Findings
) -> None:
    for group in groups:
        spellings = sorted({caption.text for caption in group})
        if len(spellings) > 1:
            places = [caption.place for caption in group]
            shown = some(f"{text!r:.80}" for text in spellings)
            findings.note(
                "near-duplicate",
                split,
                f"captions that differ in case, punctuation or spaces alone ({unit}s "
                f"{some(places)}): {shown}; keep one wording",
                places,
            )


def _note_oddities(captions: dict[str, list[_Caption]], unit: str, findings: Findings) -> None:
    """Captions that are no sentences in Latin letters, a note for each split and oddity."""
    found: dict[tuple[str, str, str], list[_Caption]] = defaultdict(list)
    for split, members in captions.items():
        for caption in members:
            for kind, told in _oddities(caption.text):
                found[kind, split, told].append(caption)
    for kind, split, told in sorted(found, key=_order_of_oddities):
        odd = found[kind, split, told]
        places = [caption.place for caption in odd]
        findings.note(
            kind,
            split,
            f"captions {told}: {len(odd):,} ({unit}s {some(places)}, such as "
            f"{odd[0].text!r:.80}); correct or remove them",
            places,
        )


def _order_of_oddities(key: tuple[str, str, str]) -> tuple[int, int, str]:
    kind, split, told = key
    return ("letters", "code", "script").index(kind), SPLITS.index(split), told


def _oddities(text: str) -> list[tuple[str, str]]:
    """Kind and words for what is odd about one caption."""
    odd = []
    scripts = _scripts(text)
    if text.strip() and not scripts:
        odd.append(("letters", "without a letter"))
    if CODE.search(text):
        odd.append(("code", "with what looks like code"))
    for script in sorted(scripts - {"Latin"}):
        odd.append(("script", f"with {script} letters"))
    return odd


def _scripts(text: str) -> set[str]:
    """The scripts of a text's letters, by the first word of the letters' Unicode names."""
    scripts = set()
    for letter in set(unicodedata.normalize("NFKC", text)):
        if letter.isalpha():
            script = unicodedata.name(letter, "UNNAMED").split()[0]
            scripts.add(script if script == "CJK" else script.capitalize())
    return scripts
