"""What an annotation file holds, whatever its layout: records of images with their captions, and
where the images lie."""

from __future__ import annotations

import os
import re
import reprlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cskt.errors import DataError

SPLITS = ("train", "val", "test")
FOLLOW_LINKS = "CSKT_FOLLOW_LINKS"  # set it, and images may be links out of their data set's folder
_SHORT = reprlib.Repr()  # of values in messages; whatever their depth and length
_SHORT.maxstring = 60
_SHORT.maxother = 60


@dataclass(frozen=True, slots=True)
class Record:
    """One image and what is written about it: a well-formed entry of an annotation file.

    ``file`` is the image's path as annotated, ``image`` where it lies; of an image that is
    ``missing``, the first of the two places where it was looked for. Where every row of a file is
    a caption, ``rows`` has each caption's, and ``facts`` the columns that have no meaning here.
    """

    split: str
    identity: int
    captions: tuple[str, ...]
    camera: str | None
    file: str
    image: Path
    missing: bool
    rows: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """An annotation file: its well-formed ``records`` by their place in the file, and what is wrong
    at each of the other places. A place is a ``unit`` and a number: ``"record"`` from 0 of a json
    list, ``"row"`` of a table, where the header is row 1."""

    path: Path
    records: dict[int, Record]
    malformed: dict[int, str]
    unit: str = "record"

    def sound_records(self) -> list[Record]:
        """All records.

        Raises :class:`cskt.errors.DataError` about the first entry that is malformed or whose image
        is missing; it names the file, the place, and the field or the image.
        """
        faults = dict(self.malformed)
        for place, record in self.records.items():
            if record.missing:
                beside = self.path.parent / record.file
                faults[place] = (
                    f"image {record.image} is missing (also looked for {beside}); "
                    "put the images there."
                )
        if faults:
            first = min(faults)
            raise DataError(f"{self.path}: {self.unit} {first}: {faults[first]}")
        return list(self.records.values())

    def place_of(self, index: int, caption: int) -> int:
        """The number of the record or row that holds caption number ``caption``, from 0, of the
        record at ``index``."""
        rows = self.records[index].rows
        return rows[caption] if rows else index


@dataclass
class ImageFolder:
    """Finds the images of an annotation file: in ``imgs/`` beside it or in its own folder, and
    nowhere outside, unless :data:`FOLLOW_LINKS` is set."""

    folder: Path
    _inside: dict[str, bool] = field(default_factory=dict)  # folders of images

    def __post_init__(self) -> None:
        self._places = (os.path.join(self.folder, "imgs"), os.fspath(self.folder))
        self._root = os.path.realpath(self.folder)
        self._follow = bool(os.environ.get(FOLLOW_LINKS))

    def find(self, file: str) -> tuple[str, bool]:
        """Where image ``file`` lies, and whether it is missing there.

        Raises :class:`cskt.errors.DataError` for a path that leads out of the folder.
        """
        above = ".." in file and ".." in re.split(r"[/\\]", file)
        if above or file.startswith(("/", "\\")) or re.match("[A-Za-z]:", file):
            raise DataError(
                f"image {file!r:.200} leads out of {self.folder}; give its path below that folder."
            )
        if "//" in file or "./" in file:  # one image, one path
            file = str(Path(file))
        for place in self._places:
            image = f"{place}/{file}"
            if self._is_file(image):
                return image, False
        return f"{self._places[0]}/{file}", True

    def _is_file(self, image: str) -> bool:
        try:
            mode = os.lstat(image).st_mode
        except (OSError, ValueError):  # ValueError: no file can be called so
            return False
        if self._follow:
            return os.path.isfile(image)
        inside = self._holds(os.path.dirname(image))
        if inside and stat.S_ISLNK(mode):
            inside = self._contains(image)
        if not inside:
            raise DataError(
                f"image {image} is reached by a link out of {self.folder}; copy it there, or set "
                f"{FOLLOW_LINKS}=1 if you trust where its links lead."
            )
        return os.path.isfile(image) if stat.S_ISLNK(mode) else stat.S_ISREG(mode)

    def _holds(self, folder: str) -> bool:
        if folder not in self._inside:
            self._inside[folder] = self._contains(folder)
        return self._inside[folder]

    def _contains(self, path: str) -> bool:
        place = os.path.realpath(path)
        return os.path.commonpath((place, self._root)) == self._root


def split_named(name: Any) -> str | None:
    """``"train"``, ``"val"`` or ``"test"``, written in any case; None for anything else."""
    split = name.strip().lower() if isinstance(name, str) else None
    return split if split in SPLITS else None


def field_of(entry: dict[str, Any], name: str, expected: str) -> Any:
    """A field that must be there."""
    if name not in entry:
        raise DataError(f"field '{name}' is missing; it must be {expected}.")
    return entry[name]


def unfit(name: str, expected: str, value: Any) -> DataError:
    """The error about a field of another type or value."""
    kind = "null" if value is None else f"{type(value).__name__} {_SHORT.repr(value):.60}"
    return DataError(f"field '{name}' must be {expected}, got {kind}; correct the annotation.")
