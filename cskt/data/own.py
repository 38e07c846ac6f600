"""Data of one's own: a table ``captions.csv`` or ``captions.jsonl`` with a caption in each row, or
any of the benchmarks' json layouts, read more strictly than those.

The columns are ``image``, ``caption``, ``identity`` and ``split``; ``camera`` may be there, and
others are kept as facts of the image, as its first row has them. An identity may be any text.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cskt.data.layouts import read_entries, read_record
from cskt.data.records import SPLITS, Annotation, ImageFolder, Record, split_named
from cskt.errors import DataError

COLUMNS = ("image", "caption", "identity", "split")
VAL_SHARE = 0.1  # of the training identities, where there is no val
IDENTITY_TEXT = "identity_text"  # the fact that has an identity as written, where it is no integer


@dataclass(slots=True)
class _Image:
    """An image with all that the file says of it, so far."""

    split: str
    identity: str
    captions: list[str]
    rows: list[int]
    camera: str | None
    file: str
    path: str
    missing: bool
    facts: dict[str, Any]
    known: set[str] | None = None  # its captions, once it has several rows

    def to_record(self, number: int, facts: dict[str, Any]) -> Record:
        return Record(
            split=self.split,
            identity=number,
            captions=tuple(self.captions),
            camera=self.camera,
            file=self.file,
            image=Path(self.path),
            missing=self.missing,
            rows=tuple(self.rows),
            facts=facts,
        )


class _Collector:
    """Puts rows together by image, and refuses those that contradict an earlier one."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.images: dict[str, _Image] = {}  # by path
        self._splits: dict[str, tuple[str, int]] = {}  # identity -> its split, and where it says so

    def enter(self, row: _Image) -> None:
        """Add one row; :class:`cskt.errors.DataError` where it cannot be true beside the others."""
        place = row.rows[0]
        split, first = self._splits.setdefault(row.identity, (row.split, place))
        if split != row.split:
            raise DataError(
                f"identity {row.identity!r:.80} is in {row.split} here and in {split} in "
                f"{self.unit} {first}; an identity belongs to one split."
            )
        image = self.images.setdefault(row.path, row)
        if image is row:
            return
        earlier = f"{self.unit} {image.rows[0]}"
        if image.identity != row.identity:
            raise DataError(
                f"image {row.file!r:.200} is of identity {row.identity!r:.80} here and of "
                f"{image.identity!r:.80} in {earlier}; an image shows one identity."
            )
        if image.known is None:
            image.known = set(image.captions)
        if not image.known.isdisjoint(row.captions):
            raise DataError(f"repeats image and caption of {earlier}; remove one of them.")
        image.known.update(row.captions)
        image.captions += row.captions
        image.rows += row.rows

    def records(self) -> dict[int, Record]:
        """The images by their first row. Identities that all are integers stay what they are; else
        they are numbered from 0 in the order of their texts."""
        identities = sorted(self._splits)
        as_text = not all(_is_integer(identity) for identity in identities)
        if as_text:
            numbers = {identity: number for number, identity in enumerate(identities)}
        else:
            numbers = {identity: int(identity) for identity in identities}
        records = {}
        equal_facts: dict[tuple, dict[str, Any]] = {}  # kept once
        for path in list(self.images):
            image = self.images.pop(path)  # in the place of the record
            if as_text:
                image.facts[IDENTITY_TEXT] = image.identity
            facts = equal_facts.setdefault(tuple(image.facts.items()), image.facts)
            records[image.rows[0]] = image.to_record(numbers[image.identity], facts)
        return records


def _is_integer(text: str) -> bool:
    """Whether ``text`` is an integer of 64 bits as Python writes it."""
    if len(text) > 20 or not text.removeprefix("-").isdecimal():
        return False
    return str(int(text)) == text and abs(int(text)) < 2**63


def read_own(path: Path) -> Annotation:
    """Every row of an annotation file of one's own, sound or not.

    Raises :class:`cskt.errors.DataError` where the file as a whole cannot be read: no text, no
    json, a column that is missing, quotes that do not end.
    """
    unit = {".csv": "row", ".jsonl": "line"}.get(path.suffix, "record")
    rows = {".csv": _rows_of_csv, ".jsonl": _rows_of_jsonl}.get(path.suffix, _rows_of_json)
    images = ImageFolder(path.parent)
    collector = _Collector(unit)
    malformed = {}
    count = 0
    try:
        for number, given in rows(path):
            count += 1
            try:
                collector.enter(_read_row(number, given, images))
            except DataError as error:
                malformed[number] = str(error)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); obtain the file again.") from error
    if not count:
        raise DataError(f"{path} has no {unit} with a caption; write one for each caption.")
    return Annotation(path, collector.records(), malformed, unit)


def _rows_of_csv(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of each row below the header."""
    number = 0
    header: list[str] = []
    # What is no UTF-8 is told with its row, when that is read.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            for number, fields in enumerate(csv.reader(file, strict=True), start=1):
                if not fields:
                    continue
                if header:
                    yield number, _Fields(header, fields)
                else:
                    header = _header(path, number, fields)
        except csv.Error as error:
            raise DataError(
                f"{path}: row {number + 1}: {error}; put captions with commas or quotes in quotes, "
                "and write a quote inside them twice."
            ) from error


@dataclass
class _Fields:
    """A row of a csv file."""

    header: list[str]
    values: list[str]


def _header(path: Path, number: int, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        shown = ", ".join(names)
        raise DataError(
            f"{path}: row {number}: columns {', '.join(missing)} are missing among {shown!r:.200}; "
            f"write {','.join(COLUMNS)} there, with commas between, and save as UTF-8."
        )
    if len(set(names)) < len(names):
        raise DataError(f"{path}: row {number}: a column stands there twice; rename one.")
    return names


def _rows_of_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of each line that is not empty."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _rows_of_json(path: Path) -> Iterator[tuple[int, Any]]:
    yield from enumerate(read_entries(path))


def _read_row(number: int, given: Any, images: ImageFolder) -> _Image:
    """A row as one of the three kinds of files gives it, checked."""
    if isinstance(given, _Fields):
        return _of_table(number, _named(given), images)
    if isinstance(given, bytes):
        return _of_table(number, _object(given), images)
    record = read_record(given, images)
    return _Image(
        split=record.split,
        identity=str(record.identity),
        captions=list(record.captions),
        rows=[number] * len(record.captions),
        camera=record.camera,
        file=record.file,
        path=str(record.image),
        missing=record.missing,
        facts={},
    )


def _named(row: _Fields) -> dict[str, Any]:
    if len(row.values) != len(row.header):
        raise DataError(
            f"has {len(row.values)} fields where the header has {len(row.header)}; put captions "
            "with commas in quotes."
        )
    return dict(zip(row.header, row.values, strict=True))


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not valid JSON ({error}); correct or remove it.") from error
    if not isinstance(row, dict):
        raise DataError(f"must be an object with fields, got {type(row).__name__}; correct it.")
    if type(row.get("identity")) is int:  # no bool
        row["identity"] = str(row["identity"])
    return row


def _of_table(number: int, row: dict[str, Any], images: ImageFolder) -> _Image:
    _check_encoding(row)
    texts = {name: _text(row, name) for name in COLUMNS}
    split = split_named(texts["split"])
    if split is None:
        raise DataError(
            f"field 'split' must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, got "
            f"{texts['split']!r:.60}; correct it."
        )
    camera = row.get("camera")
    if not isinstance(camera, str) or not camera.strip():
        camera = None
    facts = {}
    for name, value in row.items():
        if name not in COLUMNS and name != "camera" and isinstance(value, str | int | float):
            facts[name] = value
    path, missing = images.find(texts["image"])
    return _Image(
        split=split,
        identity=texts["identity"].strip(),
        captions=[texts["caption"]],
        rows=[number],
        camera=camera,
        file=texts["image"],
        path=path,
        missing=missing,
        facts=facts,
    )


def _check_encoding(row: dict[str, Any]) -> None:
    texts = [value for value in row.values() if isinstance(value, str)]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise DataError("is not UTF-8; save the file as UTF-8.") from None


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        raise DataError(f"field '{name}' is missing; every row needs {', '.join(COLUMNS)}.")
    if not isinstance(value, str):
        raise DataError(f"field '{name}' must be text, got {type(value).__name__}; correct it.")
    if not value.strip():
        raise DataError(f"field '{name}' is empty; fill it in, or remove the row.")
    return value


def split_off_val(records: list[Record], seed: int) -> tuple[list[Record], str]:
    """The records with :data:`VAL_SHARE` of the training identities, at least two, moved to val;
    and the sentence that says so.

    ``seed`` alone chooses them, whatever the seed of a run: all runs on the data share one val.
    Raises :class:`cskt.errors.DataError` where under two identities would be left.
    """
    people = sorted({record.identity for record in records if record.split == "train"})
    count = max(2, round(VAL_SHARE * len(people)))
    if len(people) < count + 2:
        raise DataError(
            f"train has {len(people)} identities, too few to split val off; add records of split "
            "val."
        )
    chosen = set(np.random.default_rng(seed).permutation(people)[:count].tolist())
    divided = []
    for record in records:
        if record.split == "train" and record.identity in chosen:
            record = dataclasses.replace(record, split="val")
        divided.append(record)
    note = f"was split off: {count} of the {len(people)} training identities, chosen by seed {seed}"
    return divided, note
