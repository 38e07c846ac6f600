"""Folders and small files: made, read and replaced so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cskt.errors import CSKTError


def make_folder(path: Path) -> Path:
    """``path`` as a folder that can be written to, made if need be; else a :class:`CSKTError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise CSKTError(
            f"{path} cannot be written ({error}); give another output folder."
        ) from error
    return path


def write_atomically(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write ``path`` so that a reader sees the old file or the new one; ``content`` may be a
    function that writes. Threads and processes may write the same path at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    if isinstance(content, str):
        content = content.encode()
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """``values`` as indented json, atomically."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a yaml file; anything else is a :class:`CSKTError` that names the file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))  # whatever the locale
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        fault = "cannot be read" if isinstance(error, OSError) else "is not valid yaml"
        raise CSKTError(
            f"{path} {fault} ({' '.join(str(error).split())}); give a yaml file."
        ) from error
    if not isinstance(values, dict):
        raise CSKTError(f"{path} must hold 'field: value' lines; correct it.")
    return values
