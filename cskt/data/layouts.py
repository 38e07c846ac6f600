"""The annotation files of the benchmarks, in the layouts in which they are published.

- CUHK-PEDES, SynthPEDES-A: ``reid_raw.json`` with records ``split, captions, file_path, id``; or
  ``caption_all.json``, where records without ``split`` are divided by identity: 1-11003 train,
  11004-12003 val, 12004-13003 test.
- ICFG-PEDES, SynthPEDES-B: ``ICFG-PEDES.json`` or ``ICFG_PEDES.json``, the same fields. The real
  set has no val.
- RSTPReid, SynthPEDES-C: ``data_captions.json``, with ``img_path`` in place of ``file_path``.

Either path field is read in every layout, split names in any case, and ``camera`` where it is a
string; other fields are ignored. Image paths are relative to ``imgs/`` beside the annotation file,
or to the annotation file's folder.
"""

from __future__ import annotations

import json
import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cskt.errors import ConfigurationError, DataError

SPLITS = ("train", "val", "test")
BY_IDENTITY = "caption_all.json"  # the file whose records may have no split
_LAST_IDENTITY = {"train": 11003, "val": 12003, "test": 13003}  # of BY_IDENTITY without split


@dataclass(frozen=True)
class Layout:
    """Under which names an annotation file goes, and whether its data set may come without val."""

    files: tuple[str, ...]
    val_optional: bool = False


_CUHK_PEDES = Layout(files=("reid_raw.json", BY_IDENTITY))
_ICFG_PEDES = Layout(files=("ICFG-PEDES.json", "ICFG_PEDES.json"), val_optional=True)
_RSTPREID = Layout(files=("data_captions.json",))
LAYOUTS = {
    "CUHK-PEDES": _CUHK_PEDES,
    "ICFG-PEDES": _ICFG_PEDES,
    "RSTPReid": _RSTPREID,
    "SynthPEDES-A": _CUHK_PEDES,
    "SynthPEDES-B": _ICFG_PEDES,
    "SynthPEDES-C": _RSTPREID,
}


def layout_of(name: str) -> Layout:
    """The layout of data set ``name``; :class:`cskt.errors.ConfigurationError` if it is unknown."""
    if name not in LAYOUTS:
        raise ConfigurationError(
            f"data set {name!r} is unknown; choose one of {', '.join(LAYOUTS)}."
        )
    return LAYOUTS[name]


@dataclass(frozen=True)
class Record:
    """One image and what is written about it: a well-formed entry of an annotation file.

    ``file`` is the image's path as annotated, ``image`` where it lies; of an image that is
    ``missing``, the first of the two places where it was looked for.
    """

    split: str
    identity: int
    captions: tuple[str, ...]
    camera: str | None
    file: str
    image: Path
    missing: bool


@dataclass(frozen=True)
class Annotation:
    """An annotation file: its well-formed ``records`` by their index in the file, from 0, and what
    is wrong with each of the others."""

    path: Path
    records: dict[int, Record]
    malformed: dict[int, str]


def find_annotation(name: str, root: str | Path | None) -> Path | None:
    """The annotation file of data set ``name`` in ``root``, its folder or the parent that holds
    ``name/``; None where there is none."""
    if root is None:
        return None
    root = Path(root).expanduser()
    for folder in (root, root / name):
        for file in layout_of(name).files:
            if (folder / file).is_file():
                return folder / file
    return None


def read_annotation(path: Path) -> Annotation:
    """Every entry of an annotation file, sound or not.

    Raises :class:`cskt.errors.DataError` only where the file is not a JSON list with entries.
    """
    entries = _read_entries(path)
    with_split = any(isinstance(entry, dict) and "split" in entry for entry in entries)
    by_identity = path.name == BY_IDENTITY and not with_split
    records = {}
    malformed = {}
    for index, entry in enumerate(entries):
        try:
            records[index] = _read_record(entry, path.parent, by_identity)
        except DataError as error:
            malformed[index] = str(error)
    return Annotation(path, records, malformed)


def read_records(path: Path) -> list[Record]:
    """All records of an annotation file.

    Raises :class:`cskt.errors.DataError` about the first entry that is malformed or whose image is
    missing; it names the file, the record, and the field or the image.
    """
    annotation = read_annotation(path)
    faults = dict(annotation.malformed)
    for index, record in annotation.records.items():
        if record.missing:
            faults[index] = (
                f"image {record.image} is missing (also looked for {path.parent / record.file}); "
                "put the images there."
            )
    if faults:
        first = min(faults)
        raise DataError(f"{path}: record {first}: {faults[first]}")
    return list(annotation.records.values())


def _read_entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); obtain the file again.") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f"{path} must hold a list of records with at least one entry; obtain the file again."
        )
    return entries


def _read_record(entry: Any, folder: Path, by_identity: bool) -> Record:
    """One entry, checked; the error names the field."""
    if not isinstance(entry, dict):
        kind = type(entry).__name__
        raise DataError(f"must be an object with fields, got {kind}; correct or remove it.")
    file = _file(entry)
    identity = _identity(entry)
    captions = _captions(entry)
    split = _split_by_identity(identity) if by_identity else _split(entry)
    camera = entry.get("camera")
    if not isinstance(camera, str):
        camera = None
    image = folder / "imgs" / file
    missing = False
    if not os.path.isfile(image):  # unlike Path.is_file it takes any string
        beside = folder / file
        missing = not os.path.isfile(beside)
        if not missing:
            image = beside
    return Record(split, identity, captions, camera, file, image, missing)


def _file(entry: dict[str, Any]) -> str:
    name = "file_path"
    if name not in entry and "img_path" in entry:
        name = "img_path"
    expected = "a path (here or in 'img_path')"
    value = _field(entry, name, expected)
    if not isinstance(value, str) or not value.strip():
        raise _unfit(name, expected, value)
    return value


def _identity(entry: dict[str, Any]) -> int:
    expected = "an integer"
    value = _field(entry, "id", expected)
    if type(value) is not int or abs(value) >= 2**63:  # a bool is an int as well
        raise _unfit("id", expected, value)
    return value


def _captions(entry: dict[str, Any]) -> tuple[str, ...]:
    expected = "a list of at least one string"
    value = _field(entry, "captions", expected)
    if not isinstance(value, list) or not value:
        raise _unfit("captions", expected, value)
    if not all(isinstance(caption, str) for caption in value):
        raise _unfit("captions", expected, value)
    return tuple(value)


def _split(entry: dict[str, Any]) -> str:
    expected = "'train', 'val' or 'test'"
    value = _field(entry, "split", expected)
    name = value.strip().lower() if isinstance(value, str) else None
    if name not in SPLITS:
        raise _unfit("split", expected, value)
    return name


def _split_by_identity(identity: int) -> str:
    for split, last in _LAST_IDENTITY.items():
        if 1 <= identity <= last:
            return split
    raise _unfit("id", "from 1 to 13003 where records have no split", identity)


def _field(entry: dict[str, Any], name: str, expected: str) -> Any:
    if name not in entry:
        raise DataError(f"field '{name}' is missing; it must be {expected}.")
    return entry[name]


def _unfit(name: str, expected: str, value: Any) -> DataError:
    kind = "null" if value is None else f"{type(value).__name__} {value!r:.60}"
    return DataError(f"field '{name}' must be {expected}, got {kind}; correct the annotation.")
