"""Images on their way into a gallery: files and arrays, what is known of them, and why some cannot
be used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cskt.errors import CSKTError

from .data.images import eight_bits, opened, read_image, reason


@dataclass
class Item:
    """An image on its way in: ``make`` gives what identifies its content, and the way to the
    picture."""

    source: str
    facts: Mapping[str, Any]
    make: Callable[[], tuple[str, Callable[[], Image.Image]]] | None


def read_metadata(path: str | Path) -> dict[str, dict[str, Any]]:
    """A csv file with a column ``file`` and others such as identity, camera, time -> file ->
    facts."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file, warnings.catch_warnings(action="error"):
            table = pd.read_csv(
                file, dtype=str, keep_default_na=False, index_col=False, skipinitialspace=True
            )
    except Exception as error:  # of pandas: many
        raise CSKTError(f"{path} cannot be read as a csv file ({reason(error)}).") from error
    if "file" not in table:
        raise CSKTError(
            f"{path} needs a column 'file' (the path below the folder), has {', '.join(table.columns)}."
        )
    if table["file"].duplicated().any():
        raise CSKTError(
            f"{path} names {table['file'][table['file'].duplicated()].iloc[0]} twice; keep one line of it."
        )
    facts = {}
    for row in table.to_dict("records"):
        name = row.pop("file")
        facts[name] = {column: value for column, value in row.items() if value != ""}
    return facts


def files_below(folder: Path, skipped: dict[str, str]) -> list[Path]:
    """Every file in a folder and below, but hidden ones and galleries; what cannot be entered is
    ``skipped``."""
    found = []

    def unread(error: OSError) -> None:
        skipped[str(error.filename)] = f"cannot be entered ({error.strerror})"

    for place, folders, names in os.walk(folder, onerror=unread):
        at = Path(place)
        if "collections" in folders and "WRITE.lock" in names:
            folders[:] = []
            continue
        for name in sorted(folders):
            if (at / name).is_symlink():
                skipped[str(at / name)] = "a link to a folder is not followed"
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [at / name for name in sorted(names) if not name.startswith(".")]
    return sorted(found)


def from_file(path: Path, facts: Mapping[str, Any]) -> Item:
    def make() -> tuple[str, Callable[[], Image.Image]]:
        if not path.is_file():  # a pipe would be waited for
            raise CSKTError("not a file")
        path.as_posix().encode()  # a name that is no text cannot be stored
        with opened(path):
            pass  # what is no image is told before its content is read
        return digest_of(path), lambda: read_image(path)

    source = os.path.abspath(path)
    return Item(source, checked({**facts, "source": None}, source), make)


def digest_of(path: Path) -> str:
    """What a file's content is known by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def checked(facts: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Facts as they are stored: those that are known, each of its field's type."""
    known = {name: value for name, value in facts.items() if value is not None and value == value}
    given = known.get("identity", 0)
    try:
        number = int(given)
        if not isinstance(given, str) and number != given or abs(number) >= 2**63:
            raise ValueError
    except (TypeError, ValueError):
        raise CSKTError(
            f"the identity of {source} must be an integer of 64 bits, got {given!r:.80}."
        ) from None
    known.update({"identity": number} if "identity" in known else {})
    for name, longest in (("camera", 256), ("time", 64)):
        if name in known and len((text := str(known[name])).encode("utf-8", "replace")) > longest:
            raise CSKTError(
                f"the {name} of {source} must have at most {longest} bytes, got {text:.80}..."
            )
        known.update({name: str(known[name])} if name in known else {})
    if bad := [name for name in known if not isinstance(name, str) or name.startswith("$")]:
        raise CSKTError(
            f"{source} has a fact called {bad[0]!r}; give it a name that does not start with $."
        )
    return known


def from_memory(image: Any) -> tuple[str, Callable[[], Image.Image]]:
    picture = picture_of(image)
    content = repr((picture.mode, picture.size, picture.getpalette())).encode() + picture.tobytes()
    return hashlib.sha256(content).hexdigest()[:32], lambda: picture


def picture_of(image: Any) -> Image.Image:
    if isinstance(image, Path):
        try:
            return read_image(image)
        except CSKTError as error:
            raise CSKTError(f"{image}: {error}; give another image.") from error
    if isinstance(image, Image.Image):
        return eight_bits(image)
    if (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
    ):
        return Image.fromarray(image)
    raise CSKTError(
        f"an image must be a Path, a PIL image or a uint8 array (H, W, 3), got {type(image).__name__} "
        f"{getattr(image, 'shape', '')}."
    )


def taken_at(image: Image.Image) -> str | None:
    """When the camera says the picture was taken, ISO 8601."""
    with contextlib.suppress(Exception):  # whatever a file claims to hold
        exif = image.getexif()
        stamp = exif.get_ifd(0x8769).get(0x9003) or exif.get(0x0132)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.strptime(stamp, "%Y:%m:%d %H:%M:%S"))
    return None


def attempt(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``work``, which gives the reason as a str where an image cannot be used."""

    def tried(item: Any) -> Any:
        try:
            return work(item)
        except CSKTError as error:
            return str(error)
        except UnicodeError:
            return "its name is not text"
        except Exception as error:  # Pillow raises many unrelated types on damaged files
            return f"cannot be read ({reason(error)})"

    return tried
