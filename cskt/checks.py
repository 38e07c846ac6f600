"""Checks of plain values, each one sentence: the field, what is allowed, what was given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cskt.errors import ConfigurationError

LONGEST_SIDE = 4096  # pixels of an image that a model is asked to take; CLIPs take 224 to 1024
LARGEST_SEED = 2**63 - 1  # what torch's generators take


def require(holds: bool, field_name: str, allowed: str, value: Any) -> None:
    """Refuse a value in one sentence: the field, what is allowed, what was given."""
    if not holds:
        raise ConfigurationError(f"{field_name} must be {allowed}, got {value!r}.")


def is_integer(value: Any, low: int) -> bool:
    """Whether ``value`` is an integer of at least ``low``; True and False are none."""
    return type(value) is int and value >= low


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number; True and False are none."""
    return type(value) in (int, float) and math.isfinite(value)


def check_integer(field_name: str, value: Any, low: int) -> None:
    """Refuse what is no integer of at least ``low``."""
    require(is_integer(value, low), field_name, f"an integer >= {low}", value)


def check_optional_integer(field_name: str, value: Any) -> None:
    """Refuse what is neither None nor a positive integer."""
    require(value is None or is_integer(value, 1), field_name, "None or an integer >= 1", value)


def check_positive(field_name: str, value: Any) -> None:
    """Refuse what is no number above zero."""
    require(is_number(value) and value > 0, field_name, "a number > 0", value)


def check_probability(field_name: str, value: Any) -> None:
    """Refuse what is no number from 0 to 1."""
    holds = is_number(value) and 0 <= value <= 1
    require(holds, field_name, "a probability from 0 to 1", value)


def check_switch(field_name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    require(type(value) is bool, field_name, "True or False", value)


def check_choice(field_name: str, value: Any, options: Sequence[str]) -> None:
    """Refuse what is none of ``options``."""
    quoted = [repr(option) for option in options]
    allowed = ", ".join(quoted[:-1]) + " or " + quoted[-1]
    require(value in options, field_name, allowed, value)


def check_field_names(config_class: type, values: dict[str, Any]) -> None:
    """Refuse names that are no fields of a configuration."""
    known = {config_field.name for config_field in dataclasses.fields(config_class)}
    unknown = sorted(str(name) for name in set(values) - known)
    if unknown:
        raise ConfigurationError(
            f"{config_class.__name__} has no field {', '.join(unknown)}; "
            "remove it from the configuration."
        )


def is_image_size(value: Any) -> bool:
    """Whether ``value`` is (height, width) in pixels, within :data:`LONGEST_SIDE`."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return False
    return all(is_integer(length, 1) and length <= LONGEST_SIDE for length in value)


def check_name(field_name: str, value: Any) -> None:
    """Refuse what is no text."""
    require(isinstance(value, str) and value != "", field_name, "a name", value)


def check_path(field_name: str, value: Any) -> None:
    """Refuse what is neither text, nor a path, nor None."""
    require(value is None or isinstance(value, (str, Path)), field_name, "a path or None", value)
