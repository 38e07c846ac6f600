"""What the repository promises of itself: clean notebooks, faithful copies, exact pins, nothing of
one machine."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import hypothesis
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cskt import __main__ as cli
from cskt import results, run_files, speed

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
BOOK = ROOT / "book"
_spec = importlib.util.spec_from_file_location("notebooks_run", ROOT / "notebooks" / "run.py")
RUNNER = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(RUNNER)


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def tags_of(cell):
    return cell["metadata"].get("tags", [])


def source_of(cell):
    return "".join(cell["source"])


def tracked_files():
    """What git holds or would hold; the whole test is skipped outside a clone."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone")
    return [path for name in listed.split("\0")[:-1] if (path := ROOT / name).is_file()]


def test_every_notebook_is_run_or_served_and_none_is_missing():
    assert sorted([*RUNNER.UPSTREAM, *RUNNER.APPS]) == [path.stem for path in SOURCES]
    assert not [name for name in RUNNER.APPS if (BOOK / "results" / f"{name}.ipynb").exists()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_sources_are_clean(path):
    cells = cells_of(path)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not [cell["source"] for cell in code if cell["outputs"] or cell["execution_count"]]
    assert sum("parameters" in tags_of(cell) for cell in cells) == 1


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.stem not in RUNNER.APPS], ids=lambda path: path.stem
)
def test_executed_copies_are_of_these_sources(path):
    copy = cells_of(BOOK / "results" / path.name)
    kept = [
        (cell["cell_type"], source_of(cell))
        for cell in copy
        if "injected-parameters" not in tags_of(cell)
    ]
    assert kept == [(cell["cell_type"], source_of(cell)) for cell in cells_of(path)]
    code = [cell for cell in copy if cell["cell_type"] == "code" and source_of(cell).strip()]
    assert all(cell["execution_count"] for cell in code)
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
    record = json.loads((BOOK / "results" / f"{path.stem}.run.json").read_text(encoding="utf-8"))
    assert {
        "sha256",
        "parameters",
        "started",
        "duration_s",
        "versions",
        "hardware",
        "commit",
    } <= set(record)


def test_constraints_are_exact_and_cover_every_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
    ] == []
    pins = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    assert len(pins) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [
        Requirement(text)
        for text in project["dependencies"] + project["optional-dependencies"]["test"]
    ]
    for requirement in required:
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), (
            f"{requirement.name}=={pin} is outside {requirement.specifier}"
        )


def test_conda_installs_the_same_versions():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))[
        "dependencies"
    ]
    python = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "requires-python"
    ]
    assert f"python {python}" in dependencies and "pip" in dependencies
    assert [entry["pip"] for entry in dependencies if isinstance(entry, dict)] == [
        ["-c constraints.txt", "-e .[test]"]
    ]


def commands_of_make(*arguments):
    """The words of each command that make would run; what an outer make or the shell has set does
    not count."""
    own = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MAKEOVERRIDES", "DATASET")
    }
    done = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env=own,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [
        shlex.split(line)
        for line in done.stdout.splitlines()
        if line.startswith((".venv/bin/python -m", "ATEN_"))
    ]


def test_makefile_readme_and_command_line_agree_on_verify():
    (command,) = [words for words in commands_of_make("verify") if "cskt" in words]
    assert command[1:] == ["-m", "cskt", "verify", "--dataset", "SynthPEDES-A"]
    assert commands_of_make("verify", "DATASET=SynthPEDES-C")[-1][-1] == "SynthPEDES-C"
    registered = {info.name: info.callback for info in cli.app.registered_commands}
    defaults = dict(
        zip(("dataset", "records", "output"), registered["verify"].__defaults__, strict=True)
    )
    assert (
        defaults["dataset"] == command[-1]
        and ROOT / defaults["records"] == BOOK / "results" / "runs"
    )
    first_block = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1]
    assert {line.split("#")[0].strip() for line in first_block.splitlines()} >= {
        "make book",
        "make test",
        "make verify",
    }
    assert (
        "make verify "
        in subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, encoding="utf-8").stdout
    )


def test_continuous_integration_repeats_what_depends_on_the_processor():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == [
        "make test",
        "make test-numerics",
    ]
    words = commands_of_make("test-numerics")[-1]
    assert (
        words[0] == "ATEN_CPU_CAPABILITY=default"
        and words[-2:] == ["-m", "numerics"]
        and "pytest" in words
    )
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "pytest"
    ]["ini_options"]
    assert [marker.partition(":")[0] for marker in options["markers"]] == ["numerics"]


def test_no_example_of_a_property_has_a_time_limit():
    """A slow chip, or a busy one, is no fault."""
    assert hypothesis.settings().deadline is None
    assert hypothesis.HealthCheck.too_slow in hypothesis.settings().suppress_health_check


def test_nothing_of_one_machine_and_no_package_index():
    folders = ["/" + name + "/" for name in ("work", "farm", "root", "home")] + ["/tmp/" + "venv"]
    indexes = ["index" + "-url", "find" + "-links", "pypi" + ".org", "download.pytorch" + ".org"]
    texts = {
        ".py",
        ".md",
        ".toml",
        ".txt",
        ".yml",
        ".yaml",
        ".ipynb",
        ".json",
        ".csv",
        ".cff",
        ".cfg",
        ".css",
        "",
    }
    found = []
    for path in tracked_files():
        if path.suffix in texts and "vendor" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="ignore")
            found += [
                f"{path.relative_to(ROOT)}: {word}" for word in folders + indexes if word in text
            ]
    assert found == []


def test_git_holds_no_large_file_and_no_data():
    tracked = tracked_files()
    assert [path.name for path in tracked if path.stat().st_size > 20e6] == []
    assert not [
        path
        for path in tracked
        if path.relative_to(ROOT).parts[0] in ("runs", "data", "_build", ".cache")
    ]


def pages():
    """Markdown of the book with the folder its paths are relative to: pages and cells of executed
    notebooks."""
    for path in sorted(BOOK.glob("*.md")):
        yield path, path.read_text(encoding="utf-8")
    for path in sorted((BOOK / "results").glob("*.ipynb")):
        yield (
            path,
            "\n".join(
                source_of(cell) for cell in cells_of(path) if cell["cell_type"] == "markdown"
            ),
        )


def test_every_file_that_the_book_refers_to_exists():
    patterns = (
        r":file:\s*(\S+)",
        r"\{(?:figure|image)\}\s+(\S+)",
        r"!\[[^\]]*\]\(([^)\s]+)\)",
        r"\{glue:\w+\}`([^`:\s]+\.ipynb)::",
        r"\]\(([^)\s#:]+)(?:#[^)]*)?\)",
    )
    missing = []
    for path, text in pages():
        referred = {
            name for pattern in patterns for name in re.findall(pattern, text) if "://" not in name
        }
        missing += [
            f"{path.name}: {name}" for name in sorted(referred) if not (path.parent / name).exists()
        ]
    assert missing == []


def test_every_chapter_exists_and_every_citation_is_known():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [toc["root"]] + [
        chapter["file"] for part in toc["parts"] for chapter in part["chapters"]
    ]
    assert [
        name
        for name in chapters
        if not any((BOOK / f"{name}{end}").exists() for end in (".md", ".ipynb"))
    ] == []
    known = set(
        re.findall(r"@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text(encoding="utf-8"))
    )
    cited = {
        key.strip()
        for _, text in pages()
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited <= known


def test_the_parameter_table_of_the_book_adds_up():
    text = (BOOK / "method.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\|[^|]+\| \$([0-9 +\\cdot]+)\$ \| ([\d,]+) \| ([\d,]+) \|$", text, flags=re.MULTILINE
    )
    total = 0
    for formula, block, all_blocks in rows:
        terms = [[int(factor) for factor in term.split(r"\cdot")] for term in formula.split("+")]
        count = sum(term[0] * (term[1] if len(term) > 1 else 1) for term in terms)
        assert (f"{count:,}", f"{12 * count:,}") == (block, all_blocks)
        total += 12 * count
    assert len(rows) == 10 and f"**{total:,}**" in text and total == 12_117_888


def test_the_readme_s_results_are_those_of_the_run_files():
    runs = run_files.run_table((BOOK / "results" / "runs").glob("*.json"))
    assert len(runs) and results.overview_markdown(runs) in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )


def test_the_readme_s_speed_is_that_of_the_run_file():
    ratios = speed.read_measurements(BOOK / "results" / "benchmarks")["throughput-cpu"]["ratios"]
    step = ratios["training step: plain fp32 / cskt fp32"]
    memory = ratios["extra memory: cskt fp32 / plain fp32"]
    full = ratios["training step: full fp32 / cskt fp32"]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace("\n> ", " ").split())
    assert f"in fp32 is {step:.2f} times as fast as the plain one's" in text
    assert f"needs {memory:.2f} times its extra memory" in text
    assert f"{full:.2f} times as fast as full fine-tuning's" in text


def test_the_committed_runs_are_clean_complete_and_comparable():
    """Every run behind a table came from a commit without local changes, on one and the same data
    per domain."""
    folder = BOOK / "results" / "runs"
    records = [run_files.read_run_file(path) for path in sorted(folder.rglob("*.json"))]
    assert all(record["commit"] and not record["dirty"] for record in records)
    mini = [record for record in records if record["config"]["backbone"] == "cskt-mini"]
    assert mini and len({record["weights_fingerprint"] for record in mini}) == 1
    for domain in results.SYNTHETIC:
        assert (
            len({record["data_fingerprint"] for record in records if record["dataset"] == domain})
            == 1
        )
        ours = [
            record
            for record in map(run_files.read_run_file, folder.glob("*.json"))
            if record["dataset"] == domain
        ]
        assert {record["method"] for record in ours} >= {"zero-shot", "full", "cskt"}
        assert len({record["seed"] for record in ours if record["method"] == "cskt"}) >= 3


def test_the_committed_benchmarks_are_of_the_full_size_and_clean():
    folder = BOOK / "results" / "benchmarks"
    records = speed.read_measurements(folder)
    assert {"ranking", "throughput-cpu"} <= set(records)
    made = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    assert all(record["commit"] and not record["dirty"] for record in made)
    made = records["throughput-cpu"]["settings"]
    assert (made["backbone"], made["image_size"], made["batch"]) == (
        "ViT-B-16-quickgelu",
        [384, 128],
        16,
    )
    assert (
        records["ranking"]["settings"]["queries"],
        records["ranking"]["settings"]["gallery"],
    ) == (6156, 3074)
