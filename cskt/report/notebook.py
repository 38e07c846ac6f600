"""What every notebook begins with: its parameters checked, its folder, the style of its figures."""

from __future__ import annotations

import ast
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cskt.config import TrainConfig
from cskt.errors import ConfigurationError

INJECTED = "# Parameters"  # how the cell begins that papermill puts behind the notebook's own
PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


@dataclass(frozen=True)
class Setup:
    """``root``: the project's folder, now the working directory. ``settings``: those of the
    notebook's parameters that are fields of :class:`cskt.config.TrainConfig`."""

    root: Path
    settings: Mapping[str, Any]

    def config(self, **changes: Any) -> TrainConfig:
        """The run that the parameters describe, with ``changes``; None means the backbone's
        default."""
        return TrainConfig.for_backbone(**{**self.settings, **changes})


def start(namespace: Mapping[str, Any]) -> Setup:
    """Begin a notebook: ``setup = notebook.start(globals())`` in the cell behind its parameters.

    Figures are drawn in the house style, as svg.

    Raises:
        ConfigurationError: papermill was given a parameter that the notebook does not have.
    """
    from cskt.report import style  # matplotlib is slow, and the workflow only reads parameters

    check_parameters(namespace.get("In", ()))
    root = enter_project()
    style.set_style()
    _draw_svg()
    settings = {}
    for field in dataclasses.fields(TrainConfig):
        value = namespace.get(field.name)
        if field.name in namespace and isinstance(value, PLAIN):
            settings[field.name] = value
    return Setup(root, settings)


def check_parameters(cells: Sequence[str]) -> None:
    """Refuse injected parameters that no cell before them assigns; papermill only logs them.

    ``cells``: the sources executed so far, IPython's ``In``.
    """
    known: set[str] = set()
    for source in cells:
        assigned = assigned_names(source)
        unknown = sorted(assigned - known)
        if source.startswith(INJECTED) and unknown:
            raise ConfigurationError(
                f"unknown parameter {', '.join(unknown)}; this notebook takes "
                f"{', '.join(sorted(known))}."
            )
        known |= assigned


def assigned_names(source: str) -> set[str]:
    """The plain names that a cell assigns at its top level; none if it is not Python."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return set()
    targets: list[ast.expr] = []
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def enter_project() -> Path:
    """Make the folder that holds ``notebooks/`` the working directory, from it or anywhere below;
    returns it. Outside a project the working directory stays."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir():
            os.chdir(folder)
            return folder
    return here


def _draw_svg() -> None:
    """Figures in a notebook become svg; nothing happens outside of one."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.run_line_magic("config", "InlineBackend.figure_formats = ['svg']")
