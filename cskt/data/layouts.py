"""The annotation files of the benchmarks, in the layouts in which they are published.

- CUHK-PEDES, SynthPEDES-A: ``reid_raw.json`` with records ``split, captions, file_path, id``; or
  ``caption_all.json``, where records without ``split`` are divided by identity: 1-11003 train,
  11004-12003 val, 12004-13003 test.
- ICFG-PEDES, SynthPEDES-B: ``ICFG-PEDES.json`` or ``ICFG_PEDES.json``, the same fields. The real
  set has no val.
- RSTPReid, SynthPEDES-C: ``data_captions.json``, with ``img_path`` in place of ``file_path``.
- Data under any other name are somebody's own: any one of these files, or a table (see
  :mod:`cskt.data.own`).

Either path field is read in every layout, split names in any case, and ``camera`` where it is a
string; other fields are ignored. Image paths are relative to ``imgs/`` beside the annotation file,
or to the annotation file's folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cskt.config import check_dataset_name
from cskt.data.records import (
    Annotation,
    ImageFolder,
    Record,
    field_of,
    split_named,
    unfit,
)
from cskt.errors import DataError

BY_IDENTITY = "caption_all.json"  # the file whose records may have no split
TABLES = ("captions.csv", "captions.jsonl")  # of one's own data
_LAST_IDENTITY = {"train": 11003, "val": 12003, "test": 13003}  # of BY_IDENTITY without split


@dataclass(frozen=True)
class Layout:
    """Under which names an annotation file goes, whether its data set may come without val, and
    whether it is somebody's own."""

    files: tuple[str, ...]
    val_optional: bool = False
    own: bool = False


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
OWN = Layout(
    files=(*TABLES, *_CUHK_PEDES.files, *_ICFG_PEDES.files, *_RSTPREID.files),
    val_optional=True,
    own=True,
)


def layout_of(name: str) -> Layout:
    """The layout of data set ``name``: that of its publication, or :data:`OWN`;
    :class:`cskt.errors.ConfigurationError` for what cannot be a name."""
    check_dataset_name(name)
    return LAYOUTS.get(name, OWN)


def find_annotation(name: str, root: str | Path | None) -> Path | None:
    """The annotation file of data set ``name`` in ``root``, its folder or the parent that holds
    ``name/``; None where there is none.

    Raises :class:`cskt.errors.DataError` where a folder of one's own data holds several.
    """
    if root is None:
        return None
    layout = layout_of(name)
    for folder in folders_of(name, root):
        present = [file for file in layout.files if (folder / file).is_file()]
        if layout.own and len(present) > 1:
            raise DataError(
                f"{folder} holds {' and '.join(present)}; keep the one annotation file that counts."
            )
        if present:
            return folder / present[0]
    return None


def folders_of(name: str, root: str | Path) -> list[Path]:
    """Where the annotation file of data set ``name`` is looked for."""
    root = Path(root).expanduser()
    if name in (".", "..") or "/" in name or "\\" in name:  # a name, and no path
        return [root]
    return [root, root / name]


def not_found(name: str, root: str | Path) -> DataError:
    """The error about a ``root`` without annotation file."""
    files = " or ".join(layout_of(name).files)
    places = " and in ".join(str(folder) for folder in folders_of(name, root)[1:])
    also = f" and in {places}" if places else ""
    return DataError(
        f"{name} is not in {root}: looked for {files} there{also}; pass the folder that holds the "
        "annotation file as root."
    )


def read_annotation(path: Path) -> Annotation:
    """Every entry of an annotation file, sound or not.

    Raises :class:`cskt.errors.DataError` only where the file is not a JSON list with entries.
    """
    entries = read_entries(path)
    with_split = any(isinstance(entry, dict) and "split" in entry for entry in entries)
    by_identity = path.name == BY_IDENTITY and not with_split
    images = ImageFolder(path.parent)
    records = {}
    malformed = {}
    for index, entry in enumerate(entries):
        try:
            records[index] = read_record(entry, images, by_identity)
        except DataError as error:
            malformed[index] = str(error)
    return Annotation(path, records, malformed)


def read_entries(path: Path) -> list[Any]:
    """The list in a json file; :class:`cskt.errors.DataError` for anything else, also for nesting
    and numbers that Python does not take."""
    try:
        entries = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); obtain the file again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); obtain the file again.") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f"{path} must hold a list of records with at least one entry; obtain the file again."
        )
    return entries


def read_record(entry: Any, images: ImageFolder, by_identity: bool = False) -> Record:
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
    image, missing = images.find(file)
    return Record(split, identity, captions, camera, file, Path(image), missing)


def _file(entry: dict[str, Any]) -> str:
    name = "file_path"
    if name not in entry and "img_path" in entry:
        name = "img_path"
    expected = "a path (here or in 'img_path')"
    value = field_of(entry, name, expected)
    if not isinstance(value, str) or not value.strip():
        raise unfit(name, expected, value)
    return value


def _identity(entry: dict[str, Any]) -> int:
    expected = "an integer"
    value = field_of(entry, "id", expected)
    if type(value) is not int or abs(value) >= 2**63:  # a bool is an int as well
        raise unfit("id", expected, value)
    return value


def _captions(entry: dict[str, Any]) -> tuple[str, ...]:
    expected = "a list of at least one string"
    value = field_of(entry, "captions", expected)
    if not isinstance(value, list) or not value:
        raise unfit("captions", expected, value)
    if not all(isinstance(caption, str) for caption in value):
        raise unfit("captions", expected, value)
    return tuple(value)


def _split(entry: dict[str, Any]) -> str:
    expected = "'train', 'val' or 'test'"
    value = field_of(entry, "split", expected)
    split = split_named(value)
    if split is None:
        raise unfit("split", expected, value)
    return split


def _split_by_identity(identity: int) -> str:
    for split, last in _LAST_IDENTITY.items():
        if 1 <= identity <= last:
            return split
    raise unfit("id", "from 1 to 13003 where records have no split", identity)
