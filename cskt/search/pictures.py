"""Images on their way into a gallery: files and arrays, what is known of them, and why some cannot
be used."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from cskt.data.datasets import Split
from cskt.data.images import eight_bits, opened, read_image, reason
from cskt.errors import CSKTError, DataError
from cskt.search.folder import holds_galleries

Facts = Mapping[str, Any]
Given = TypeVar("Given")
Result = TypeVar("Result")
LONGEST = {"camera": 256, "time": 64}  # bytes
OURS = ("id", "vector", "thumbnail")  # what a gallery says of an image itself
LARGEST = 2**30  # bytes of an image file
DIGITS = 32  # hexadecimal, of the digest that images are known by


@dataclass(frozen=True)
class Item:
    """An image on its way in: where it comes from, what is known of it, and its file or itself."""

    source: str
    facts: Facts
    image: Any

    def digest(self) -> str:
        """What the content is known by; :class:`CSKTError` for what is no image."""
        if isinstance(self.image, Path):
            return self._digest_of_file(self.image)
        picture = picture_of(self.image)
        shape = repr((picture.mode, picture.size, picture.getpalette()))
        return hashlib.sha256(shape.encode() + picture.tobytes()).hexdigest()[:DIGITS]

    def picture(self) -> Image.Image:
        """The picture, decoded; :class:`CSKTError` where that fails."""
        if isinstance(self.image, Path):
            return read_image(self.image)
        return picture_of(self.image)

    @staticmethod
    def _digest_of_file(path: Path) -> str:
        if not path.is_file():  # a pipe would be waited for
            raise DataError("not a file")
        path.as_posix().encode()  # a name that is no text cannot be stored
        with opened(path):
            pass  # what is no image is told before its content is read
        return digest_of(path)


@dataclass(frozen=True)
class Refusal:
    """Why an image cannot be used."""

    reason: str


def attempt(work: Callable[[Given], Result]) -> Callable[[Given], Result | Refusal]:
    """``work``, which gives a :class:`Refusal` where an image cannot be used."""

    def tried(given: Given) -> Result | Refusal:
        try:
            return work(given)
        except CSKTError as error:
            return Refusal(str(error))
        except UnicodeError:
            return Refusal("its name is not text")
        except Exception as error:  # Pillow raises many unrelated types on damaged files
            return Refusal(f"cannot be read ({reason(error)})")

    return tried


def items_of(
    images: str | Path | Split | np.ndarray | Sequence[Any],
    metadata: Mapping[str, Facts] | Sequence[Facts] | None,
    skipped: dict[str, str],
) -> list[Item]:
    """The images of a folder (with all below it), a split, or a sequence of files, PIL images and
    arrays, each with its facts.

    ``metadata`` and the errors are those of :meth:`cskt.search.gallery.Gallery.add`; what cannot be
    entered in a folder goes into ``skipped``: file -> why.
    """
    if isinstance(images, Split):
        if metadata is not None:
            raise DataError("a split has facts of its own; add it without metadata.")
        return _items_of_split(images)
    if isinstance(images, str | Path):
        if metadata is not None and not isinstance(metadata, Mapping):
            raise DataError("metadata of a folder must be a mapping from its files to facts.")
        return _items_of_folder(Path(images).expanduser(), metadata or {}, skipped)
    if isinstance(metadata, Mapping):
        raise DataError("metadata must hold one mapping per image, in their order.")
    return _items_of_sequence(images, metadata)


def _items_of_folder(
    folder: Path, metadata: Mapping[str, Facts], skipped: dict[str, str]
) -> list[Item]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with images.")
    facts: dict[str, Facts] = {}
    for name, row in metadata.items():
        path = os.path.normpath(name)
        if path in facts:
            raise DataError(f"metadata name {path} twice, once as {name}; keep one of them.")
        if "source" in row:
            raise DataError(
                f"metadata of {name} say a source, which is the file itself; "
                "leave that column out or rename it."
            )
        facts[path] = row
    paths = {str(path.relative_to(folder)): path for path in files_below(folder, skipped)}
    unknown = sorted(set(facts) - set(paths))
    if unknown:
        raise DataError(
            f"metadata name {len(unknown)} files that are not in {folder}, such as {unknown[0]}; "
            "name files by their path below the folder."
        )
    return [item_of_file(path, facts.get(name, {})) for name, path in paths.items()]


def _items_of_split(split: Split) -> list[Item]:
    items = []
    for index, path in enumerate(split.image_paths):
        camera = split.cameras[index] if split.cameras else None
        identity = int(split.image_identities[index])
        facts = {name: values[index] for name, values in split.facts.items()}
        items.append(item_of_file(path, {**facts, "identity": identity, "camera": camera}))
    return items


def _items_of_sequence(
    images: np.ndarray | Sequence[Any], metadata: Sequence[Facts] | None
) -> list[Item]:
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise DataError(
            f"images must be a uint8 array (N, H, W, 3), got {images.dtype} {images.shape}."
        )
    if metadata is None:
        metadata = [{}] * len(images)
    if len(metadata) != len(images):
        raise DataError(
            f"metadata must hold one mapping per image, got {len(metadata)} for "
            f"{len(images)} images."
        )
    items = []
    for index, image in enumerate(images):
        facts = metadata[index] or {}
        if isinstance(image, str | Path):
            items.append(item_of_file(Path(image), facts))
        else:
            name = f"image {index}"
            items.append(Item(str(facts.get("source", name)), checked(facts, name), image))
    return items


def item_of_file(path: Path, facts: Facts) -> Item:
    """An image file and what is known of it; its source is its absolute path."""
    source = os.path.abspath(path)
    return Item(source, checked({**facts, "source": None}, source), path)


def files_below(folder: Path, skipped: dict[str, str]) -> list[Path]:
    """Every file in a folder and below, but hidden ones and galleries; what cannot be entered is
    ``skipped``."""
    files: list[Path] = []

    def unread(error: OSError) -> None:
        skipped[str(error.filename)] = f"cannot be entered ({error.strerror})"

    for place, folders, names in os.walk(folder, onerror=unread):
        parent = Path(place)
        if holds_galleries(folders, names):
            folders.clear()
            continue
        for name in sorted(folders):
            if (parent / name).is_symlink():
                skipped[str(parent / name)] = "a link to a folder is not followed"
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.extend(parent / name for name in names if not name.startswith("."))
    return sorted(files)


def digest_of(path: Path) -> str:
    """What a file's content is known by; :class:`CSKTError` for what is no file, such as a pipe or
    a device, which would be read for ever, or is too large for an image."""
    if not path.is_file():
        raise DataError("not a file")
    if path.stat().st_size > LARGEST:
        raise DataError(f"too large (more than {LARGEST >> 20} MiB)")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def checked(facts: Facts, source: str) -> dict[str, Any]:
    """Facts as they are stored: those that are known, each of its field's type.

    :class:`CSKTError` for an identity that is no integer of 64 bits, a camera or time that is too
    long, and a name that Milvus keeps for itself.
    """
    known = {}
    for name, value in facts.items():
        is_nan = value != value
        if value is None or is_nan:
            continue
        if not isinstance(name, str) or name.startswith("$"):
            raise DataError(
                f"{source} has a fact called {name!r}; give it a name that does not start with $."
            )
        if name in OURS:
            raise DataError(
                f"{source} has a fact called {name}, which a gallery says itself; rename it."
            )
        known[name] = value
    if "identity" in known:
        known["identity"] = _identity(known["identity"], source)
    for name, longest in LONGEST.items():
        if name in known:
            known[name] = _short_text(known[name], name, longest, source)
    return known


def _identity(given: Any, source: str) -> int:
    try:
        number = int(given)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or abs(number) >= 2**63 or (not isinstance(given, str) and number != given):
        raise DataError(
            f"the identity of {source} must be an integer of 64 bits, got {given!r:.80}."
        )
    return number


def _short_text(value: Any, name: str, longest: int, source: str) -> str:
    text = str(value)
    if len(text.encode("utf-8", "replace")) > longest:
        raise DataError(
            f"the {name} of {source} must have at most {longest} bytes, got {text:.80}..."
        )
    return text


def read_metadata(path: str | Path) -> dict[str, dict[str, str]]:
    """A csv file with a column ``file`` and others such as identity, camera, time -> file ->
    facts."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a csv file ({reason(error)}).") from error
    if "file" not in columns:
        raise DataError(
            f"{path} needs a column 'file' (the path below the folder), has {', '.join(columns)}."
        )
    facts: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        if None in row:  # the reader puts there what is beyond the last column
            raise DataError(
                f"{path} cannot be read as a csv file (row {line} has more than "
                f"{len(columns)} columns)."
            )
        name = row.pop("file")
        if name in facts:
            raise DataError(f"{path} names {name} twice; keep one line of it.")
        facts[name] = {column: value for column, value in row.items() if value}
    return facts


def picture_of(image: Any) -> Image.Image:
    """A picture given as Path, PIL image or (H, W, 3) uint8 array; :class:`CSKTError` for what
    cannot be read, and for anything else."""
    if isinstance(image, Path):
        try:
            return read_image(image)
        except CSKTError as error:
            raise DataError(f"{image}: {error}; give another image.") from error
    if isinstance(image, Image.Image):
        return eight_bits(image)
    is_uint8 = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if is_uint8 and image.ndim == 3 and image.shape[2] == 3:
        return Image.fromarray(image)
    shape = getattr(image, "shape", "")
    raise DataError(
        "an image must be a Path, a PIL image or a uint8 array (H, W, 3), "
        f"got {type(image).__name__} {shape}."
    )
