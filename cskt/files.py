"""Folders and small files: made, read and replaced so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml
from filelock import FileLock
from safetensors import SafetensorError

from cskt.errors import ConfigurationError, ResourceError


def make_folder(path: Path) -> Path:
    """``path`` as a folder that can be written to, made if need be; else a
    :class:`ResourceError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written ({error}); give another output folder."
        ) from error
    return path


def lock(path: Path) -> FileLock:
    """A lock that one process at a time holds, on the file ``path``.

    Raises :class:`cskt.errors.ResourceError` where no such file can be made, which would otherwise
    be waited for without end.
    """
    try:
        path.touch()
    except OSError as error:
        raise ResourceError(
            f"{path.parent} cannot be written ({error.strerror}); give another folder or a shorter "
            "name."
        ) from error
    return FileLock(path)


def write_atomically(
    path: Path, content: bytes | str | Callable[[Path], None], durable: bool = False
) -> None:
    """Write ``path`` so that a reader sees the old file or the new one; ``content`` may be a
    function that writes. Threads and processes may write the same path at once.

    ``durable``: the content is on the disk, past the system's buffers, before the old file goes, so
    that a machine that loses its power keeps one of the two.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    if isinstance(content, str):
        content = content.encode()
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        if durable:
            synchronise(temporary)
        os.replace(temporary, path)
        if durable:
            synchronise(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_named(folder: Path, name: str, advice: str) -> Iterator[None]:
    """Within the block, a file (called ``name``) that cannot be written into ``folder`` is a
    :class:`ResourceError`, which says to free space and then to follow the ``advice``."""
    try:
        yield
    # torch's own for a full disk is a RuntimeError
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(folder).free / 1e6
        reason = str(error).splitlines()[0]
        raise ResourceError(
            f"{folder / name} cannot be written ({reason}; {free:,.0f} MB are free); free space "
            f"there and {advice}."
        ) from error


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """``values`` as indented json, atomically."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a yaml file; anything else is a :class:`ConfigurationError` that names the
    file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))  # whatever the locale
    # Of values that yaml knows and Python does not take, such as the 45th of May.
    except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        fault = "cannot be read" if isinstance(error, OSError) else "is not valid yaml"
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{path} {fault} ({reason}); give a yaml file.") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} must hold 'field: value' lines; correct it.")
    return values


def file_name(name: str) -> str:
    """``name`` as a part of file names: itself where it is short and plain; else what is plain of
    it, and a digest of all."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name)[:32].strip("-")
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain}-{digest}".lstrip("-")


def public_name(pretrained: str | os.PathLike | None) -> str | None:
    """``pretrained`` as others may see it: of a path the file's name only, on whatever system; a
    tag as it is."""
    if pretrained is None:
        return None
    return PureWindowsPath(os.fspath(pretrained)).name


def printable(line: str) -> str:
    """A line that stays one line, whatever it holds: line ends, control characters and
    lone surrogates are escaped."""
    characters = []
    for character in line:
        if not character.isprintable():
            character = ascii(character)[1:-1]
        characters.append(character)
    return "".join(characters)
