"""Execute the notebooks in order and write what the book shows: ``python notebooks/run.py``.

``book/results/NAME.ipynb`` is the executed copy and ``NAME.run.json`` says what was run, on what
and for how long. A notebook runs again only when something it depends on has changed since this
machine last ran it (``runs/.stamps``).
"""

from __future__ import annotations

import argparse
import ast
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
from cskt.report.notebook import assigned_names

ROOT = Path(__file__).resolve().parents[1]
# In the order of execution: notebook -> notebooks whose results it reads.
UPSTREAM: dict[str, tuple[str, ...]] = {
    "data": (),
    "train": (),
    "benchmarks": ("train",),
    "ablations": (),
    "noise": (),
    "variation": (),
    "robustness": (),
    "feedback": (),
    "checklist": (),
    "prompts": ("train",),
    "retrieval": ("train",),
    "search": ("train",),
    "efficiency": ("train",),
}
APPS = ("demo",)  # served by Voila (make demo), no page of the book
INPUTS = ("constraints.txt", "cskt/**/*.py", "cskt/assets/*", "cskt/search/web/*")
READS = {  # files that a notebook reads besides
    "benchmarks": ("book/data/*.csv", "book/results/runs/**/*.json", "book/results/runs/**/*.npz"),
    "ablations": ("book/data/*.csv", "book/results/runs/**/*.json", "book/results/runs/**/*.npz"),
    "checklist": ("book/results/runs/**/*.json", "book/results/runs/**/*.npz"),
    "noise": ("book/data/noise.csv", "book/results/runs/noise/*.json"),
    "variation": ("book/results/runs/*.json", "book/results/benchmarks/variation-*.json"),
    "robustness": ("book/results/robustness/*.json",),
    "feedback": ("book/results/feedback/*.json",),
    "efficiency": ("book/data/*.csv", "book/results/benchmarks/*.json"),
    # The first of these it writes itself.
    "search": ("book/_assets/search/*", "book/_assets/vendor/onnxruntime-web-*"),
}
PICTURE = "book/results/figures/retrieval.png"  # the README shows it
QUICK = {"epochs": 1}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
ANSI = r"\x1b\[[0-9;]*m"  # what colours a message in a terminal


class NotebookError(RuntimeError):
    """A notebook could not be executed: one sentence that says which, where and why."""


def declared_parameters(notebook: nbformat.NotebookNode, name: str) -> set[str]:
    """Names assigned in the one cell tagged ``parameters``."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise NotebookError(
            f"notebooks/{name}.ipynb has {len(cells)} cells tagged 'parameters'; it must have one."
        )
    return assigned_names(cells[0].source)


def digest(root: Path, name: str, parameters: dict[str, Any]) -> str:
    """SHA-256 of everything the result depends on: the notebook's source, its parameters, what
    Python code does (:func:`code_digest`), other files it reads, upstream executions."""
    files = [root / "notebooks" / f"{name}.ipynb"]
    for pattern in INPUTS + READS.get(name, ()):
        files += sorted(path for path in root.glob(pattern) if path.is_file())
    files += [stamp_path(root, upstream) for upstream in UPSTREAM.get(name, ())]
    total = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in files:
        total.update(path.relative_to(root).as_posix().encode())
        total.update(file_digest(path).encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Hex digest of what a file says to a notebook; "absent" where there is none."""
    if not path.exists():
        return "absent"
    if path.suffix == ".py":
        return code_digest(path.read_text(encoding="utf-8"))
    return sha256(path)


def code_digest(source: str) -> str:
    """Hex digest of what Python source does: comments, formatting and docstrings do not count, as
    no notebook shows them. Source that cannot be parsed counts as it is."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return hashlib.sha256(source.encode()).hexdigest()
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamp_path(root: Path, name: str) -> Path:
    """The note of this machine's last successful execution; it lives beside the runs, so it goes
    when they go."""
    return root / "runs" / ".stamps" / f"{name}.json"


def is_fresh(root: Path, name: str, parameters: dict[str, Any]) -> bool:
    """Whether the executed copy is this machine's own result of exactly the present inputs."""
    copy = root / "book" / "results" / f"{name}.ipynb"
    try:
        stamp = json.loads(stamp_path(root, name).read_text())
        output = sha256(copy)
    except (FileNotFoundError, ValueError):
        return False
    return stamp.get("inputs") == digest(root, name, parameters) and stamp.get("output") == output


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


def execute(root: Path, name: str, parameters: dict[str, Any]) -> None:
    """Run one notebook; only a complete execution replaces the copy in ``book/results``."""
    source = root / "notebooks" / f"{name}.ipynb"
    results = root / "book" / "results"
    results.mkdir(parents=True, exist_ok=True)
    # Even a failed execution may have changed files beside the copy.
    stamp_path(root, name).unlink(missing_ok=True)
    started = datetime.now(UTC)
    clock = time.perf_counter()
    notebook = tidy(_executed(root, name, parameters), root)
    text, published = without_private_paths(nbformat.writes(notebook) + "\n", parameters)
    record = {
        "notebook": f"notebooks/{name}.ipynb",
        "sha256": sha256(source),
        "parameters": published,
        "started": started.isoformat(timespec="seconds"),
        "duration_s": round(time.perf_counter() - clock, 1),
        **environment(resolve_device("auto")),
    }
    write_atomically(results / f"{name}.ipynb", text)
    write_json(results / f"{name}.run.json", record)
    stamp = {
        "inputs": digest(root, name, parameters),
        "output": sha256(results / f"{name}.ipynb"),
        **record,
    }
    stamp_path(root, name).parent.mkdir(parents=True, exist_ok=True)
    write_json(stamp_path(root, name), stamp)


def _executed(root: Path, name: str, parameters: dict[str, Any]) -> nbformat.NotebookNode:
    """The notebook with its outputs; a :class:`NotebookError` names the cell that failed."""
    temporary = root / "book" / "results" / f".{name}.partial.ipynb"
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


def run(root: Path, names: list[str], offered: dict[str, Any], force: bool = False) -> list[str]:
    """Execute those of the named notebooks that are not fresh, in order; returns the names that
    were executed.

    A notebook is given those of the offered parameters that its own ``parameters`` cell declares.
    """
    executed = []
    for name in names:
        source = root / "notebooks" / f"{name}.ipynb"
        if not source.is_file():
            raise NotebookError(f"notebooks/{name}.ipynb does not exist; restore it from git.")
        declared = declared_parameters(nbformat.read(source, as_version=4), name)
        parameters = {key: value for key, value in offered.items() if key in declared}
        if not force and is_fresh(root, name, parameters):
            print(f"{name}: up to date")
            continue
        print(f"{name}: running with {parameters} ...", flush=True)
        clock = time.perf_counter()
        execute(root, name, parameters)
        print(f"{name}: done in {time.perf_counter() - clock:.0f} s", flush=True)
        executed.append(name)
    return executed


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Execute the notebooks into book/results.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(UPSTREAM)}")
    parser.add_argument("--dataset", default="SynthPEDES-A")
    parser.add_argument("--data-root", help="folder of a real data set, or of your own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="one epoch: shows that it runs, no more"
    )
    parser.add_argument("--force", action="store_true", help="run even what is up to date")
    chosen = parser.parse_args(arguments)
    offered = {"dataset": chosen.dataset, "seed": chosen.seed, "picture": PICTURE}
    if chosen.quick:
        offered |= QUICK
    if chosen.data_root:
        offered["data_root"] = str(Path(chosen.data_root).resolve())
    try:
        run(ROOT, chosen.names or list(UPSTREAM), offered, chosen.force)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
