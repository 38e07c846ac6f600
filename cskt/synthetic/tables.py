"""The tables that say what is drawn and written: the yaml files of this folder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from cskt.files import read_yaml


@functools.cache
def table(name: str) -> dict[str, Any]:
    """The contents of ``name.yaml``, its lists as tuples."""
    return _frozen(read_yaml(Path(__file__).with_name(f"{name}.yaml")))


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(entry) for entry in value)
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return value
