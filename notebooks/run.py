"""Execute one notebook: ``python notebooks/run.py NAME COPY [PARAMETERS]`` in the project's folder.

The workflow calls this. Beside the executed copy, ``NAME.run.json`` says what was run, on what and
for how long.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from cskt.environment import environment
from cskt.files import write_atomically, write_json
from cskt.numerics import resolve_device

ANSI = r"\x1b\[[0-9;]*m"  # what colours a message in a terminal


class NotebookError(RuntimeError):
    """A notebook could not be executed: one sentence that says which, where and why."""


def tidy(notebook: nbformat.NotebookNode, root: Path) -> nbformat.NotebookNode:
    """Drop what differs between two equal executions: timings and this machine's folders, and
    widgets, which answer nobody on a page."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
        if "outputs" in cell:  # a finished progress bar is an empty space on a page
            cell["outputs"] = [out for out in cell["outputs"] if not is_progress_bar(out)]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"
    text = nbformat.writes(notebook).replace(str(root), ".")
    if sys.prefix != sys.base_prefix:
        text = text.replace(sys.prefix, ".")
    return nbformat.reads(text, as_version=4)


def is_progress_bar(output: nbformat.NotebookNode) -> bool:
    """Whether an output is tqdm's bar rather than a widget of the notebook's own."""
    data = output.get("data", {})
    widget = "application/vnd.jupyter.widget-view+json" in data
    return widget and bool(re.search(r"\d+%\|.*\[", str(data.get("text/plain", ""))))


def without_private_paths(text: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """An executed notebook's json and its parameters, with ``DIR`` for the folder where somebody's
    data lie."""
    place = parameters.get("data_root")
    if place is None:
        return text, parameters
    return text.replace(json.dumps(place)[1:-1], "DIR"), {**parameters, "data_root": "DIR"}


def execute(root: Path, name: str, copy: Path, parameters: dict[str, Any]) -> None:
    """Run one notebook of ``root``; only a complete execution writes ``copy`` and, beside it, the
    record of what was run."""
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise NotebookError(f"notebooks/{name}.ipynb does not exist; restore it from git.")
    copy.parent.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC)
    clock = time.perf_counter()
    notebook = tidy(_executed(root, name, copy, parameters), root)
    text, published = without_private_paths(nbformat.writes(notebook) + "\n", parameters)
    record = {
        "notebook": f"notebooks/{name}.ipynb",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "parameters": published,
        "started": started.isoformat(timespec="seconds"),
        "duration_s": round(time.perf_counter() - clock, 1),
        **environment(resolve_device("auto")),
    }
    write_atomically(copy, text)
    write_json(copy.with_suffix(".run.json"), record)


def _executed(
    root: Path, name: str, copy: Path, parameters: dict[str, Any]
) -> nbformat.NotebookNode:
    """The notebook with its outputs; a :class:`NotebookError` names the cell that failed."""
    temporary = copy.with_name(f".{name}.partial.ipynb")
    try:
        papermill.execute_notebook(
            root / "notebooks" / f"{name}.ipynb",
            temporary,
            parameters,
            cwd=root,
            progress_bar=sys.stderr.isatty(),
            extra_arguments=["--IPKernelApp.log_level=40"],  # no greeting
        )
        return nbformat.read(temporary, as_version=4)
    except PapermillExecutionError as error:
        message = " ".join(re.sub(ANSI, "", error.evalue).split())
        cell = error.source.strip().partition("\n")[0]
        raise NotebookError(
            f"notebooks/{name}.ipynb failed in the cell `{cell}`: {error.ename}: {message}"
        ) from None
    except DeadKernelError:
        raise NotebookError(
            f"notebooks/{name}.ipynb lost its kernel, probably for want of memory."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Execute one notebook of the project.")
    parser.add_argument("name", metavar="NAME", help="such as train")
    parser.add_argument("copy", type=Path, help="where the executed copy goes")
    given = "as json, such as '{\"seed\": 1}'"
    parser.add_argument("parameters", nargs="?", type=json.loads, default={}, help=given)
    chosen = parser.parse_args(arguments)
    try:
        execute(Path.cwd(), chosen.name, chosen.copy, chosen.parameters)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
