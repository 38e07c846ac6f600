"""Which notebooks there are, and what each of them reads and writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cskt.report.notebook import assigned_names

EXECUTED = "_build/executed"  # laid over book/; nothing in it is tracked
RENDERED = "_build/rendered"  # says that the drawn data sets have been rendered
# Many files at once: a list of their checksums, made by a rule, stands for them.
CODE = "_build/sums/code.txt"
RUN_FILES = "_build/sums/run-files.txt"
SUMMED = {
    CODE: (
        *("constraints.txt", "cskt/**/*.py", "cskt/**/*.yaml"),
        *("cskt/assets/*", "cskt/search/web/*"),
    ),
    RUN_FILES: ("book/results/runs/**/*.json", "book/results/runs/**/*.npz"),
}
PUBLISHED = ("book/data/*.csv",)
TABLES = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")
TABLES += ("SynthPEDES-A", "SynthPEDES-B", "SynthPEDES-C", "runs")
RUNTIME = "_assets/vendor/onnxruntime-web-1.30.0"  # .min.js, .mjs.js and .wasm.js
PICTURE = "results/figures/retrieval.png"  # the README shows it
SEARCH = ("encoder", "features", "gallery", "queries", "tokenizer")


@dataclass(frozen=True)
class Notebook:
    """``reads``: patterns of tracked files besides the code. ``after``: what other rules make.
    ``writes``: files of :data:`EXECUTED` besides the copy. ``places``: parameters that say where in
    :data:`EXECUTED` they go."""

    reads: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    places: dict[str, str] = field(default_factory=dict)


# The run that is trained in one notebook is looked at in others.
TRAINED = (f"{EXECUTED}/results/train.ipynb",)
NOTEBOOKS = {
    "data": Notebook(after=(RENDERED,)),
    "train": Notebook(after=(RENDERED,)),
    "benchmarks": Notebook(
        reads=PUBLISHED,
        after=(RUN_FILES,),
        writes=tuple(f"results/{name}.csv" for name in TABLES),
        places={"saved": "results"},
    ),
    "ablations": Notebook(reads=PUBLISHED, after=(RUN_FILES,)),
    "noise": Notebook(reads=("book/data/noise.csv",), after=(RUN_FILES,)),
    "variation": Notebook(reads=("book/results/benchmarks/variation-*.json",), after=(RUN_FILES,)),
    "robustness": Notebook(reads=("book/results/robustness/*.json",)),
    "checklist": Notebook(after=(RUN_FILES,)),
    "prompts": Notebook(after=TRAINED),
    "retrieval": Notebook(after=TRAINED, writes=(PICTURE,), places={"picture": PICTURE}),
    "search": Notebook(
        after=(
            *TRAINED,
            *(f"{EXECUTED}/{RUNTIME}.{kind}.js" for kind in ("min", "mjs", "wasm")),
        ),
        writes=tuple(f"_assets/search/{name}.data.js" for name in SEARCH),
        places={"page": "_assets/search"},
    ),
    "efficiency": Notebook(reads=(*PUBLISHED, "book/results/benchmarks/*.json"), after=TRAINED),
}
APPS = ("demo",)  # served by Voila (make demo), no page of the book
OF_RUN_FILES = ("benchmarks", "ablations", "noise", "variation", "checklist")  # make reproduce


def files(*patterns: str) -> list[str]:
    """The files of the project that match, in order, as paths from its folder."""
    found: set[str] = set()
    for pattern in patterns:
        found.update(path.as_posix() for path in Path().glob(pattern) if path.is_file())
    return sorted(found)


def book_sources() -> list[str]:
    """What the book is made of besides executed notebooks; prose may show code."""
    prose = [path for path in files("book/**/*") if not path.startswith("book/results/")]
    return [*prose, "_config.yml", "workflow/stage.py", CODE]


def copy_of(name: str) -> str:
    """The executed copy of a notebook."""
    return f"{EXECUTED}/results/{name}.ipynb"


def inputs(name: str) -> list[str]:
    """Everything that a notebook's result depends on."""
    notebook = NOTEBOOKS[name]
    source = f"notebooks/{name}.ipynb"
    return [source, CODE, *notebook.after, *files(*notebook.reads)]


def outputs(name: str) -> list[str]:
    """The executed copy, what was run, and the files that the notebook writes."""
    written = [f"{EXECUTED}/{path}" for path in NOTEBOOKS[name].writes]
    return [copy_of(name), f"{EXECUTED}/results/{name}.run.json", *written]


def parameters(name: str, offered: dict[str, Any]) -> str:
    """As json, those of the offered parameters that the notebook declares, and its places."""
    declared: set[str] = set()
    notebook = json.loads(Path(f"notebooks/{name}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            declared |= assigned_names("".join(cell["source"]))
    values = {key: value for key, value in offered.items() if key in declared}
    for key, place in NOTEBOOKS[name].places.items():
        values[key] = f"{EXECUTED}/{place}"
    return json.dumps(values, sort_keys=True)
