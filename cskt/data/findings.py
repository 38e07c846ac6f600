"""What checking a copy of a data set found: the counts beside those published, faults and notes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from cskt.files import printable

SHOWN = 10  # names in one message; lines of one kind in the table


class Counts(NamedTuple):
    """How much a split holds."""

    images: int
    identities: int
    captions: int


# As published by Li et al. (2017), Ding et al. (2021) and Zhu et al. (2021), references.bib.
# Captions of CUHK-PEDES are those of reid_raw.json; caption_all.json has two per image by the
# authors' readme, so there that is right as well.
PUBLISHED: dict[str, dict[str, Counts]] = {
    "CUHK-PEDES": {
        "train": Counts(images=34054, identities=11003, captions=68126),
        "val": Counts(images=3078, identities=1000, captions=6158),
        "test": Counts(images=3074, identities=1000, captions=6156),
    },
    "ICFG-PEDES": {
        "train": Counts(images=34674, identities=3102, captions=34674),
        "test": Counts(images=19848, identities=1000, captions=19848),
    },
    "RSTPReid": {
        "train": Counts(images=18505, identities=3701, captions=37010),
        "val": Counts(images=1000, identities=200, captions=2000),
        "test": Counts(images=1000, identities=200, captions=2000),
    },
}


@dataclass(frozen=True)
class Finding:
    """What is wrong, ``where`` (split, record, folder or file) and, in ``message``, what to do
    about it.

    ``kind``: version (of SynthPEDES), counts, record (malformed), missing, identity, caption (empty
    or cut), ambiguous, near-duplicate, letters, code, script, path (listed twice), image, duplicate
    or cache. ``places``: of captions, the numbers of all the records or rows that it is about.
    """

    kind: str
    where: str
    message: str
    places: tuple[int, ...] = field(default=(), compare=False)


class Findings:
    """Faults, which make a copy unfit, and notes, which are good to know; filled by the checks."""

    def __init__(self) -> None:
        self.faults: list[Finding] = []
        self.notes: list[Finding] = []

    def fault(self, kind: str, where: str, message: str) -> None:
        """Add a fault."""
        self.faults.append(Finding(kind, where, message))

    def note(self, kind: str, where: str, message: str, places: Iterable[int] = ()) -> None:
        """Add a note."""
        self.notes.append(Finding(kind, where, message, tuple(places)))


@dataclass(frozen=True)
class Report:
    """What :func:`cskt.data.verify.verify` found; ``counts``, of well-formed records with or
    without image, by split as in :data:`PUBLISHED`."""

    name: str
    annotation: Path
    deep: bool
    counts: dict[str, Counts]
    faults: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    @property
    def published(self) -> dict[str, Counts]:
        """The counts of the complete data set, by split; empty where none are published."""
        return PUBLISHED.get(self.name, {})

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for json."""
        return {
            "name": self.name,
            "annotation": str(self.annotation),
            "deep": self.deep,
            "counts": _as_dicts(self.counts),
            "faults": [asdict(finding) for finding in self.faults],
            "notes": [asdict(finding) for finding in self.notes],
            "published": _as_dicts(self.published),
        }

    def to_text(self) -> str:
        """A table for people: the counts, then one line per finding, at most :data:`SHOWN` of a
        kind."""
        lines = [f"{self.name}: {self.annotation}", _header()]
        for split, counts in self.counts.items():
            published = self.published.get(split)
            lines.append(_row_of(split, counts, published))
        lines += _lines_of("fault", self.faults)
        lines += _lines_of("note", self.notes)
        faults = len(self.faults)
        notes = len(self.notes)
        total = f"faults: {faults:,}, notes: {notes:,}"
        if not self.deep:
            total += " (images were not opened; --deep decodes every one)"
        lines.append(total)
        return "\n".join(printable(line) for line in lines)


def some(names: Iterable[Any]) -> str:
    """The first :data:`SHOWN` names, separated by commas."""
    texts = [str(name) for name in names]
    if len(texts) > SHOWN:
        texts = [*texts[:SHOWN], "..."]
    return ", ".join(texts)


def _as_dicts(counts: dict[str, Counts]) -> dict[str, dict[str, int]]:
    return {split: numbers._asdict() for split, numbers in counts.items()}


def _header() -> str:
    fields = "".join(f"{field:>12}" for field in Counts._fields)
    return f"split {fields}   published"


def _row_of(split: str, counts: Counts, published: Counts | None) -> str:
    """One line of the table."""
    numbers = "".join(f"{number:12,}" for number in counts)
    complete = "-"
    if published is not None:
        complete = " / ".join(f"{number:,}" for number in published)
    return f"{split:6}{numbers}   {complete}"


def _lines_of(severity: str, findings: Iterable[Finding]) -> list[str]:
    """One line per finding, at most :data:`SHOWN` of a kind; they come ordered by kind."""
    lines = []
    for kind, group in groupby(findings, key=lambda finding: finding.kind):
        told = [f"{severity}: {finding.where}: {finding.message}" for finding in group]
        lines += told[:SHOWN]
        if len(told) > SHOWN:
            more = len(told) - SHOWN
            lines.append(f"{severity}: {more:,} more of kind {kind!r}; --json lists all")
    return lines
