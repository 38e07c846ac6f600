"""notebooks/run.py on toy notebooks: what runs again, what a failure leaves behind, what the copies
look like."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCRIPT = Path(__file__).resolve().parents[2] / "notebooks" / "run.py"
NAMES = ("data", "train", "benchmarks")
SEED = {"seed": 0}
CODE = "def area(side):\n    return side * side\n"


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("notebooks_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_notebook(root, name, *sources):
    """A notebook whose first cell holds the parameters."""
    cells = [new_code_cell(source, id=f"c{number}") for number, source in enumerate(sources)]
    notebook = new_notebook(cells=cells)
    notebook.cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = kernel
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


def pretend_executed(runner, root, name, parameters=SEED):
    """Stands in for papermill where only the bookkeeping is under test."""
    copy = root / "book" / "results" / f"{name}.ipynb"
    stamp = runner.stamp_path(root, name)
    copy.parent.mkdir(parents=True, exist_ok=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(f"{name} {parameters}")
    noted = {"inputs": runner.digest(root, name, parameters), "output": runner.sha256(copy)}
    stamp.write_text(json.dumps(noted))


def fresh(runner, root):
    return [name for name in NAMES if runner.is_fresh(root, name, SEED)]


# Execution


def test_an_execution_leaves_a_copy_and_a_record(runner, tmp_path):
    write_notebook(tmp_path, "toy", "seed = 0", "import os\nprint('seed', seed, os.getcwd())")
    assert runner.run(tmp_path, ["toy"], {"seed": 3, "epochs": 2}) == ["toy"]
    results = tmp_path / "book" / "results"
    executed = nbformat.read(results / "toy.ipynb", as_version=4)
    assert [cell.id for cell in executed.cells] == ["c0", "injected-parameters", "c1"]
    text = executed.cells[2].outputs[0].text
    assert text == "seed 3 .\n", "the folder of the repository is shortened"
    assert "papermill" not in executed.metadata
    assert "papermill" not in executed.cells[2].metadata
    record = json.loads((results / "toy.run.json").read_text())
    assert record["parameters"] == {"seed": 3}, "epochs is not a parameter of this notebook"
    assert record["sha256"] == runner.sha256(tmp_path / "notebooks" / "toy.ipynb")
    assert {"started", "duration_s", "versions", "hardware", "commit"} <= set(record)


def test_a_notebook_runs_again_only_when_forced_and_then_looks_the_same(runner, tmp_path):
    write_notebook(tmp_path, "toy", "seed = 0", "print(seed)")
    runner.run(tmp_path, ["toy"], SEED)
    copy = tmp_path / "book" / "results" / "toy.ipynb"
    before = copy.read_bytes()
    assert runner.run(tmp_path, ["toy"], SEED) == []
    assert runner.run(tmp_path, ["toy"], SEED, force=True) == ["toy"]
    assert copy.read_bytes() == before


def test_a_failure_leaves_the_former_copy_which_is_fresh_no_more(runner, tmp_path):
    write_notebook(tmp_path, "toy", "seed = 0", "print(seed)")
    runner.run(tmp_path, ["toy"], SEED)
    results = tmp_path / "book" / "results"
    before = (results / "toy.ipynb").read_bytes()
    write_notebook(tmp_path, "toy", "seed = 0", "raise ValueError('no folder\\nhere')")
    message = r"toy\.ipynb failed in the cell .*: ValueError: no folder here$"
    with pytest.raises(runner.NotebookError, match=message):
        runner.run(tmp_path, ["toy"], SEED)
    assert (results / "toy.ipynb").read_bytes() == before
    assert sorted(path.name for path in results.iterdir()) == ["toy.ipynb", "toy.run.json"]
    assert not runner.is_fresh(tmp_path, "toy", SEED)


def test_the_command_reports_a_failure_in_one_line(runner, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.main(["absent"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "absent.ipynb" in said


# What makes a copy stale


@pytest.fixture
def project(runner, tmp_path):
    """Three notebooks that have been executed, and a package of one module."""
    (tmp_path / "cskt" / "assets").mkdir(parents=True)
    (tmp_path / "cskt" / "area.py").write_text(CODE)
    for name in NAMES:
        write_notebook(tmp_path, name, "seed = 0")
    for name in NAMES:
        pretend_executed(runner, tmp_path, name)
    return tmp_path


def test_what_has_been_executed_is_fresh_for_its_parameters(runner, project):
    assert fresh(runner, project) == ["data", "train", "benchmarks"]
    assert not runner.is_fresh(project, "data", {"seed": 1})


def test_a_fresh_clone_holds_copies_but_no_stamps(runner, project):
    for name in NAMES:
        runner.stamp_path(project, name).unlink()
    assert fresh(runner, project) == []


def test_another_source_makes_stale(runner, project):
    write_notebook(project, "train", "seed = 0", "pass")
    assert fresh(runner, project) == ["data", "benchmarks"]


def test_another_execution_makes_those_stale_that_read_its_results(runner, project):
    write_notebook(project, "train", "seed = 0", "pass")
    pretend_executed(runner, project, "train")
    assert fresh(runner, project) == ["data", "train"]


@pytest.mark.parametrize(
    "source",
    [
        "def area(side):\n    return side + side\n",
        "def area(side=1):\n    return side * side\n",
        "def area(side):\n    'A sentence.'\n    return side * side\n\n\n'more'\n",
        "def area(side:\n",
    ],
    ids=["another expression", "another default", "a string that is no docstring", "no Python"],
)
def test_other_code_makes_everything_stale(runner, project, source):
    (project / "cskt" / "area.py").write_text(source)
    assert fresh(runner, project) == []


@pytest.mark.parametrize(
    "source",
    [
        '"""A module."""\n\n\ndef area(side):\n    """Of a square."""\n    return side * side\n',
        "# A comment.\ndef area(side):  # another\n    return side * side\n",
        "def area(\n    side,\n):\n\n    return (\n        side * side\n    )\n",
    ],
    ids=["docstrings", "comments", "formatting"],
)
def test_what_code_says_but_does_not_do_makes_nothing_stale(runner, project, source):
    (project / "cskt" / "area.py").write_text(source)
    assert fresh(runner, project) == ["data", "train", "benchmarks"]


def test_docstrings_of_classes_and_methods_do_not_count_either(runner):
    bare = "class Square:\n    side = 1\n    async def area(self):\n        return 1\n"
    said = bare.replace("    side", '    """One."""\n    side').replace(
        "        return", '        """Two."""\n        return'
    )
    assert runner.code_digest(bare) == runner.code_digest(said)
    assert runner.code_digest(bare) != runner.code_digest(bare.replace("1", "2"))


def test_other_weights_make_everything_stale(runner, project):
    (project / "cskt" / "assets" / "weights.bin").write_text("changed")
    assert fresh(runner, project) == []


def test_another_run_file_makes_those_stale_that_read_run_files(runner, project):
    (project / "book" / "results" / "runs").mkdir()
    (project / "book" / "results" / "runs" / "new.json").write_text("{}")
    assert fresh(runner, project) == ["data", "train"]


def test_the_copy_of_another_machine_is_stale(runner, project):
    (project / "book" / "results" / "data.ipynb").write_text("another machine's copy")
    assert fresh(runner, project) == ["train", "benchmarks"]


def test_half_a_stamp_makes_stale(runner, project):
    runner.stamp_path(project, "data").write_text("{ half a stamp")
    assert fresh(runner, project) == ["train", "benchmarks"]


# Parameters and copies


def test_parameters_are_what_the_one_tagged_cell_assigns(runner):
    cells = [new_code_cell("a = 1\nb: int = 2\nc, d = 3, 4"), new_code_cell("e = 5")]
    cells[0].metadata["tags"] = ["parameters"]
    assert runner.declared_parameters(new_notebook(cells=cells), "toy") == {"a", "b"}


@pytest.mark.parametrize(("tags", "count"), [([], 0), (["parameters"], 2)])
def test_only_one_parameters_cell_is_accepted(runner, tags, count):
    cells = [new_code_cell("a = 1"), new_code_cell("e = 5")]
    for cell in cells:
        cell.metadata["tags"] = tags
    with pytest.raises(runner.NotebookError, match=rf"toy\.ipynb has {count} cells"):
        runner.declared_parameters(new_notebook(cells=cells), "toy")


def test_the_folder_of_private_data_is_not_published(runner, tmp_path):
    private = tmp_path / "home" / "me" / "photographs"
    root = tmp_path / "project"
    root.mkdir()
    write_notebook(root, "toy", "data_root = None", "print('read from', data_root)")
    parameters = {"data_root": str(private)}
    runner.run(root, ["toy"], parameters)
    published = (root / "book" / "results" / "toy.ipynb").read_text(encoding="utf-8")
    record = json.loads((root / "book" / "results" / "toy.run.json").read_text())
    assert "photographs" not in published
    assert "read from DIR" in published
    assert record["parameters"] == {"data_root": "DIR"}
    assert runner.run(root, ["toy"], parameters) == []
    assert runner.run(root, ["toy"], {"data_root": str(private / "other")}) == ["toy"]
