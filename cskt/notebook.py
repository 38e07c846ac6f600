"""The one-line set-up of a notebook: parameters checked, the project's folder, the house style."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from IPython.core.getipython import get_ipython

from cskt.errors import ConfigurationError
from cskt.style import set_style

_PARAMETER_TYPES = (bool, int, float, str, list, tuple, dict, type(None))
_NAMES_OF_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def start(namespace: dict[str, Any], parameters: Iterable[str]) -> None:
    """Make a notebook's process ready: refuse parameters that it does not know, make the project's
    folder the working directory, since notebooks name their files from there, and draw in the
    house style, as svg.

    Args:
        namespace: the notebook's ``globals()``.
        parameters: the names that it defines itself: those of the cell tagged ``parameters``.

    Raises:
        ConfigurationError: the namespace holds another parameter.
    """
    check_parameters(namespace, parameters)
    os.chdir(project_folder(Path.cwd()))
    set_style()
    shell = get_ipython()
    if shell is not None:
        shell.run_line_magic("config", "InlineBackend.figure_formats = ['svg']")


def check_parameters(namespace: dict[str, Any], allowed: Iterable[str]) -> None:
    """Refuse a notebook parameter that the notebook does not know; papermill alone would only log
    it. Arguments and error as of :func:`start`."""
    known = {*allowed, *_NAMES_OF_IPYTHON}
    unknown = []
    for name, value in namespace.items():
        if name.startswith("_") or name in known:
            continue
        if type(value) in _PARAMETER_TYPES:  # not a module, a function or a class
            unknown.append(name)
    if unknown:
        raise ConfigurationError(
            f"unknown parameter {', '.join(sorted(unknown))}; "
            f"this notebook takes {', '.join(sorted(allowed))}."
        )


def project_folder(folder: Path) -> Path:
    """The nearest of ``folder`` and those above it that holds ``notebooks/``; else ``folder``."""
    for candidate in (folder, *folder.parents):
        if (candidate / "notebooks").is_dir():
            return candidate
    return folder
