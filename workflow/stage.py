"""The book with this machine's executed notebooks: ``stage.py build`` lays them over a copy of
``book/`` and builds that; ``stage.py freeze`` copies them over the committed ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from notebook_table import EXECUTED

STAGE = Path("_build/stage")
# The configuration and prose name files beside book/: the search page's scripts, code, sources.
STAGED = ("_config.yml", "CITATION.cff", "CHANGELOG.md", "book", "cskt", "notebooks")
NOT_STAGED = shutil.ignore_patterns("__pycache__", ".*", "*.safetensors")


def lay_over(source: Path, target: Path) -> None:
    """Copy a folder over another one, files with their times, so that Sphinx sees what is new."""
    shutil.copytree(source, target, ignore=NOT_STAGED, dirs_exist_ok=True)


def stage(root: Path) -> Path:
    """Make the copy of the book with the executed notebooks in it; returns its folder."""
    folder = root / STAGE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in STAGED:
        source = root / name
        if source.is_dir():
            lay_over(source, folder / name)
        elif source.is_file():
            shutil.copy2(source, folder / name)
    lay_over(root / EXECUTED, folder / "book")
    return folder / "book"


def build(root: Path) -> int:
    """Build the staged book into ``_build/html``; returns the exit status."""
    book = stage(root)
    command = [sys.executable, "-m", "jupyter_book", "build", str(book)]
    command += ["-W", "--keep-going", "--path-output", str(root)]
    return subprocess.run(command, check=False).returncode


def freeze(root: Path) -> int:
    """Make what was executed the committed results; returns the exit status."""
    lay_over(root / EXECUTED, root / "book")
    return 0


if __name__ == "__main__":
    sys.exit({"build": build, "freeze": freeze}[sys.argv[1]](Path.cwd()))
