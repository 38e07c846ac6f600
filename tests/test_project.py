"""What the repository promises of itself: clean notebooks, faithful copies, exact pins, nothing of
one machine."""

import importlib.util
import inspect
import json
import math
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
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from cskt.cli import reproduce
from cskt.config import SYNTHETIC_DATASETS
from cskt.report import efficiency, run_files
from cskt.report import tables as results

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


def sources_of(cells):
    """Type and text of every cell but the one that papermill adds."""
    sources = []
    for cell in cells:
        if "injected-parameters" not in tags_of(cell):
            sources.append((cell["cell_type"], source_of(cell)))
    return sources


def read_pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked_files():
    """What git holds or would hold; the whole test is skipped outside a clone."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone")
    paths = [ROOT / name for name in listed.split("\0")[:-1]]
    return [path for path in paths if path.is_file()]


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
    assert sources_of(copy) == sources_of(cells_of(path))
    for cell in copy:
        if cell["cell_type"] == "code" and source_of(cell).strip():
            assert cell["execution_count"]
            assert "error" not in [output["output_type"] for output in cell["outputs"]]
    record = json.loads((BOOK / "results" / f"{path.stem}.run.json").read_text(encoding="utf-8"))
    assert set(record) >= {"sha256", "parameters", "started", "duration_s"}
    assert set(record) >= {"versions", "hardware", "commit"}


def test_constraints_are_exact_and_cover_every_dependency():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
        name, _, version = line.partition("==")
        assert canonicalize_name(name) not in pins
        pins[canonicalize_name(name)] = version
    project = read_pyproject()["project"]
    dependencies = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        dependencies.extend(extra)
    for requirement in map(Requirement, dependencies):
        if requirement.name == project["name"]:  # an extra that takes in another one
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement} does not allow {pin}"


def test_conda_installs_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    dependencies = environment["dependencies"]
    assert f"python {read_pyproject()['project']['requires-python']}" in dependencies
    assert "pip" in dependencies
    [with_pip] = [entry for entry in dependencies if isinstance(entry, dict)]
    assert with_pip["pip"] == ["-c constraints.txt", "-e .[search,book,log,test]"]


def commands_of_make(*arguments):
    """The words of each command that make would run; what an outer make or the shell has set does
    not count."""
    own = dict(os.environ)
    for name in ("MAKEFLAGS", "MAKEOVERRIDES", "DATASET"):
        own.pop(name, None)
    done = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env=own,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    lines = done.stdout.splitlines()
    return [
        shlex.split(line) for line in lines if line.startswith((".venv/bin/python -m", "ATEN_"))
    ]


def test_makefile_readme_and_command_line_agree_on_verify():
    (command,) = [words for words in commands_of_make("verify") if "cskt" in words]
    assert command[1:] == ["-m", "cskt", "verify", "--dataset", "SynthPEDES-A"]
    assert commands_of_make("verify", "DATASET=SynthPEDES-C")[-1][-1] == "SynthPEDES-C"
    defaults = inspect.signature(reproduce.verify).parameters
    assert defaults["dataset"].default == command[-1]
    assert ROOT / defaults["records"].default == BOOK / "results" / "runs"
    first_block = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1]
    commands = {line.split("#")[0].strip() for line in first_block.splitlines()}
    assert commands >= {"make book", "make test", "make verify"}
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert "make verify " in help_text.stdout


def test_continuous_integration_repeats_what_depends_on_the_processor():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == [
        "make lint",
        "make test",
        "make test-numerics",
    ]
    words = commands_of_make("test-numerics")[-1]
    assert words[0] == "ATEN_CPU_CAPABILITY=default"
    assert words[-2:] == ["-m", "numerics"]
    assert "pytest" in words
    options = read_pyproject()["tool"]["pytest"]["ini_options"]
    markers = {marker.partition(":")[0] for marker in options["markers"]}
    assert markers == {"numerics", "slow", "browser"}


def test_no_example_of_a_property_has_a_time_limit():
    """A slow chip, or a busy one, is no fault."""
    assert hypothesis.settings().deadline is None
    assert hypothesis.HealthCheck.too_slow in hypothesis.settings().suppress_health_check


TEXT_SUFFIXES = (
    *("", ".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".ipynb"),
    *(".json", ".csv", ".cff", ".cfg", ".css"),
)


def test_nothing_of_one_machine_and_no_package_index():
    folders = ["/" + name + "/" for name in ("work", "farm", "root", "home")] + ["/tmp/" + "venv"]
    indexes = ["index" + "-url", "find" + "-links", "pypi" + ".org", "download.pytorch" + ".org"]
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES and "vendor" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="ignore")
            for word in folders + indexes:
                assert word not in text, path.relative_to(ROOT)


def test_git_holds_no_large_file_and_no_data():
    for path in tracked_files():
        assert path.stat().st_size <= 20e6
        assert path.relative_to(ROOT).parts[0] not in ("runs", "data", "_build", ".cache")


def pages():
    """Markdown of the book with the folder its paths are relative to: pages and cells of executed
    notebooks."""
    for path in sorted(BOOK.glob("*.md")):
        yield path, path.read_text(encoding="utf-8")
    for path in sorted((BOOK / "results").glob("*.ipynb")):
        cells = [cell for cell in cells_of(path) if cell["cell_type"] == "markdown"]
        yield path, "\n".join(source_of(cell) for cell in cells)


def test_every_file_that_the_book_refers_to_exists():
    patterns = (
        r":file:\s*(\S+)",
        r"\{(?:figure|image)\}\s+(\S+)",
        r"!\[[^\]]*\]\(([^)\s]+)\)",
        r"\{glue:\w+\}`([^`:\s]+\.ipynb)::",
        r"\]\(([^)\s#:]+)(?:#[^)]*)?\)",
    )
    for path, text in pages():
        for pattern in patterns:
            for name in re.findall(pattern, text):
                assert "://" in name or (path.parent / name).exists(), f"{path.name}: {name}"


def test_every_chapter_exists_and_every_citation_is_known():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [toc["root"]]
    for part in toc["parts"]:
        chapters.extend(chapter["file"] for chapter in part["chapters"])
    for name in chapters:
        assert (BOOK / f"{name}.md").exists() or (BOOK / f"{name}.ipynb").exists(), name
    references = (BOOK / "references.bib").read_text(encoding="utf-8")
    known = set(re.findall(r"@\w+\{([^,\s]+),", references))
    for path, text in pages():
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text):
            for key in keys.split(","):
                assert key.strip() in known, f"{path.name}: {key}"


def test_the_parameter_table_of_the_book_adds_up():
    text = (BOOK / "method.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\|[^|]+\| \$([0-9 +\\cdot]+)\$ \| ([\d,]+) \| ([\d,]+) \|$", text, flags=re.MULTILINE
    )
    total = 0
    for formula, block, all_blocks in rows:
        count = value_of(formula)
        assert f"{count:,}" == block
        assert f"{12 * count:,}" == all_blocks
        total += 12 * count
    assert len(rows) == 10
    assert total == 12_117_888
    assert f"**{total:,}**" in text


def value_of(formula):
    """A sum of products in LaTeX, such as ``512 \\cdot 768 + 768``."""
    total = 0
    for term in formula.split("+"):
        total += math.prod(int(factor) for factor in term.split(r"\cdot"))
    return total


def test_the_readme_s_results_are_those_of_the_run_files():
    runs = run_files.run_table((BOOK / "results" / "runs").glob("*.json"))
    assert len(runs)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results.overview_markdown(runs) in text


def test_the_readme_s_speed_is_that_of_the_run_file():
    ratios = efficiency.read_measurements(BOOK / "results" / "benchmarks")["throughput-cpu"][
        "ratios"
    ]
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
    assert mini
    assert len({record["weights_fingerprint"] for record in mini}) == 1
    tables = [run_files.read_run_file(path) for path in sorted(folder.glob("*.json"))]
    for domain in SYNTHETIC_DATASETS:
        on_domain = [record for record in records if record["dataset"] == domain]
        assert len({record["data_fingerprint"] for record in on_domain}) == 1
        in_tables = [record for record in tables if record["dataset"] == domain]
        assert {record["method"] for record in in_tables} >= {"zero-shot", "full", "cskt"}
        seeds = {record["seed"] for record in in_tables if record["method"] == "cskt"}
        assert len(seeds) >= 3


def test_the_committed_benchmarks_are_of_the_full_size_and_clean():
    folder = BOOK / "results" / "benchmarks"
    records = efficiency.read_measurements(folder)
    assert {"ranking", "throughput-cpu"} <= set(records)
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["commit"]
        assert not record["dirty"]
    throughput = records["throughput-cpu"]["settings"]
    assert throughput["backbone"] == "ViT-B-16-quickgelu"
    assert throughput["image_size"] == [384, 128]
    assert throughput["batch"] == 16
    ranking = records["ranking"]["settings"]
    assert ranking["queries"] == 6156
    assert ranking["gallery"] == 3074


def workflow(name):
    return (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")


def test_continuous_integration_tries_every_python_that_the_package_allows():
    job = yaml.safe_load(workflow("test"))["jobs"]["test"]
    versions = SpecifierSet(read_pyproject()["project"]["requires-python"])
    tried = job["strategy"]["matrix"]["python"]
    assert tried == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in versions]
    assert job["strategy"]["matrix"]["system"] == ["ubuntu-latest", "macos-latest"]


def test_what_may_publish_is_pinned_by_commit():
    text = workflow("publish")
    for action in ("upload-pages-artifact", "deploy-pages"):
        assert re.search(rf"uses: actions/{action}@[0-9a-f]{{40}}\s", text), action


def test_the_address_of_the_repository_stands_in_one_place():
    lines = (ROOT / "_config.yml").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("  url:")]
    assert re.fullmatch(r'  url: ("")|(https://\S+)', line)
    assert "s|^  url:.*|" in workflow("publish"), "publishing writes it there"
