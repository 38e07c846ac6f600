"""notebooks/run.py on toy notebooks: what runs again, what a failure leaves behind, what the copies
look like."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCRIPT = Path(__file__).resolve().parents[2] / "notebooks" / "run.py"


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("notebooks_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_notebook(root, name, *sources):
    """A notebook whose first cell holds the parameters."""
    notebook = new_notebook(
        cells=[new_code_cell(source, id=f"c{i}") for i, source in enumerate(sources)]
    )
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


def pretend_executed(runner, root, name, parameters):
    """Stands in for papermill where only the bookkeeping is under test."""
    copy = root / "book" / "results" / f"{name}.ipynb"
    stamp = runner.stamp_path(root, name)
    for path in (copy, stamp):
        path.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(f"{name} {parameters}")
    stamp.write_text(
        json.dumps({"inputs": runner.digest(root, name, parameters), "output": runner.sha256(copy)})
    )


def test_execution_record_rerun_and_failure(runner, tmp_path, capsys):
    write_notebook(tmp_path, "toy", "seed = 0", "import os\nprint('seed', seed, os.getcwd())")
    assert runner.run(tmp_path, ["toy"], {"seed": 3, "epochs": 2}) == ["toy"]
    results = tmp_path / "book" / "results"
    copy = results / "toy.ipynb"
    executed = nbformat.read(copy, as_version=4)
    assert [cell.id for cell in executed.cells] == ["c0", "injected-parameters", "c1"]
    assert (
        executed.cells[2].outputs[0].text == "seed 3 .\n"
    )  # the folder of the repository, shortened
    assert "papermill" not in executed.metadata and "papermill" not in executed.cells[2].metadata
    record = json.loads((results / "toy.run.json").read_text())
    assert record["parameters"] == {"seed": 3}  # epochs is not a parameter of this notebook
    assert record["sha256"] == runner.sha256(tmp_path / "notebooks" / "toy.ipynb")
    assert {"started", "duration_s", "versions", "hardware", "commit"} <= set(record)

    assert runner.run(tmp_path, ["toy"], {"seed": 3}) == []
    before = copy.read_bytes()
    assert runner.run(tmp_path, ["toy"], {"seed": 3}, force=True) == ["toy"]
    assert copy.read_bytes() == before

    write_notebook(tmp_path, "toy", "seed = 0", "raise ValueError('no folder\\nhere')")
    with pytest.raises(
        runner.NotebookError, match=r"toy\.ipynb failed in the cell .*: ValueError: no folder here$"
    ):
        runner.run(tmp_path, ["toy"], {"seed": 3})
    assert copy.read_bytes() == before
    assert sorted(path.name for path in results.iterdir()) == ["toy.ipynb", "toy.run.json"]
    assert not runner.is_fresh(tmp_path, "toy", {"seed": 3})


def test_the_command_reports_a_failure_in_one_line(runner, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.main(["absent"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "absent.ipynb" in captured.err


def test_what_makes_a_copy_stale(runner, tmp_path):
    for name in ("data", "train", "benchmarks"):
        write_notebook(tmp_path, name, "seed = 0")
    (tmp_path / "cskt" / "assets").mkdir(parents=True)
    (tmp_path / "cskt" / "model.py").write_text("a = 1\n")

    def all_executed():
        for name in ("data", "train", "benchmarks"):
            pretend_executed(runner, tmp_path, name, {"seed": 0})

    def fresh():
        return [
            name
            for name in ("data", "train", "benchmarks")
            if runner.is_fresh(tmp_path, name, {"seed": 0})
        ]

    assert fresh() == []  # a fresh clone holds copies but no stamps
    all_executed()
    assert fresh() == ["data", "train", "benchmarks"]
    assert not runner.is_fresh(tmp_path, "data", {"seed": 1})

    write_notebook(tmp_path, "train", "seed = 0", "pass")
    assert fresh() == ["data", "benchmarks"]
    pretend_executed(runner, tmp_path, "train", {"seed": 0})
    assert fresh() == ["data", "train"]  # benchmarks reads what train wrote

    for changed in ("cskt/model.py", "cskt/assets/weights.bin"):
        all_executed()
        (tmp_path / changed).write_text("changed")
        assert fresh() == []

    all_executed()
    (tmp_path / "book" / "results" / "runs").mkdir()
    (tmp_path / "book" / "results" / "runs" / "new.json").write_text("{}")
    assert fresh() == ["data", "train"]  # only benchmarks reads run files

    all_executed()
    (tmp_path / "book" / "results" / "data.ipynb").write_text("another machine's copy")
    assert fresh() == ["train", "benchmarks"]
    runner.stamp_path(tmp_path, "train").write_text("{ half a stamp")
    assert fresh() == []


def test_only_one_parameters_cell_is_accepted(runner):
    cells = [new_code_cell("a = 1\nb: int = 2\nc, d = 3, 4"), new_code_cell("e = 5")]
    cells[0].metadata["tags"] = ["parameters"]
    assert runner.declared_parameters(new_notebook(cells=cells), "toy") == {"a", "b"}
    for tags in ([], ["parameters"]):
        for cell in cells:
            cell.metadata["tags"] = tags
        with pytest.raises(runner.NotebookError, match=r"toy\.ipynb has [02] cells"):
            runner.declared_parameters(new_notebook(cells=cells), "toy")


def test_the_folder_of_private_data_is_not_published(runner, tmp_path):
    private = tmp_path / "home" / "me" / "photographs"
    root = tmp_path / "project"
    root.mkdir()
    write_notebook(root, "toy", "data_root = None", "print('read from', data_root)")
    runner.run(root, ["toy"], {"data_root": str(private)})
    published = (root / "book" / "results" / "toy.ipynb").read_text(encoding="utf-8")
    record = json.loads((root / "book" / "results" / "toy.run.json").read_text())
    assert "photographs" not in published and "read from DIR" in published
    assert record["parameters"] == {"data_root": "DIR"}
    assert runner.run(root, ["toy"], {"data_root": str(private)}) == []
    assert runner.run(root, ["toy"], {"data_root": str(private / "other")}) == ["toy"]
