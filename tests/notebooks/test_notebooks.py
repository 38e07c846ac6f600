"""The notebooks as papermill runs them: on the embedded default, on real-shaped data, with bad
parameters."""

from __future__ import annotations

import json
from pathlib import Path

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from cskt.report import tables as results
from cskt.report.differences import RANKS_MISSING
from cskt.synthetic import synthetic_dataset
from tests import run_records
from tests.tiny_runs import write_dataset

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
BOOK_DATA = NOTEBOOKS.parent / "book" / "data"
PUBLISHED = {name: str(BOOK_DATA / f"{name}.csv") for name in ("literature", "efficiency")}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder of its own, with a small SynthPEDES in it, so that nothing of the real one
    is written."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").mkdir()
    for domain in "ABC":
        synthetic_dataset(f"SynthPEDES-{domain}", folder / "data", identities=(12, 4, 8))
    return folder


def execute(project: Path, name: str, **parameters) -> str:
    """Run a notebook with papermill in ``project``; everything it printed or displayed as text."""
    result = papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb",
        project / f"{name}.out.ipynb",
        parameters,
        cwd=project,
        progress_bar=False,
    )
    text = []
    for cell in result.cells:
        for output in cell.get("outputs", []):
            text += [output.get("text", ""), *map(str, output.get("data", {}).values())]
    return "\n".join(text)


def test_train_then_retrieve(project):
    settings = dict(dataset="SynthPEDES-A", data_root=str(project / "data"), epochs=2, seed=1)
    text = execute(project, "train", **settings)
    (folder,) = (
        path
        for path in (project / "runs").iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    record = json.loads((folder / "metrics.json").read_text())
    assert record["synthetic"] and record["seed"] == 1 and record["config"]["epochs"] == 2
    assert (
        f"{record['metrics']['text_to_image']['R@1']:.2f}" in text
        and "synthetic data SynthPEDES-A" in text
    )
    text = execute(project, "retrieval", **settings, picture=str(project / "strip.png"))
    assert f"run {folder.name}" in text, "the finished run is used, not trained again"
    assert (project / "strip.png").stat().st_size > 10_000
    text = execute(project, "search", **settings)
    page = project / "book" / "_assets" / "search"
    assert (
        '<section class="cskt-search"' in text
        and "100.00%" in text
        and "SynthPEDES-A (synthetic)" in text
    )
    assert {path.name for path in page.iterdir()} >= {"encoder.data.js", "gallery.data.js"}
    execute(project, "demo", **settings)
    assert len(list(folder.glob("gallery-*.db"))) == 2, "one place for each model"
    with pytest.raises(PapermillExecutionError, match="there is no gallery at gone.db"):
        execute(project, "demo", gallery="gone.db")


def test_no_page_is_written_of_photographs(project, tmp_path):
    """A tiny data set in a real one's name and layout: the notebook says why it stops, and
    stops."""
    (tmp_path / "notebooks").mkdir()
    text = execute(
        tmp_path,
        "search",
        dataset="CUHK-PEDES",
        epochs=1,
        data_root=str(write_dataset(tmp_path / "CUHK-PEDES", size=(128, 64))),
    )
    assert "CUHK-PEDES shows photographs of people, which may not be redistributed" in text
    assert "<section" not in text and not (tmp_path / "book").exists()


def test_data_and_benchmarks(project):
    assert "(synthetic)" in execute(
        project, "data", dataset="SynthPEDES-A", data_root=str(project / "data")
    )
    (project / "book" / "results").mkdir(parents=True)
    text = execute(project, "benchmarks", runs=str(project / "none"), **PUBLISHED)
    assert text.count("not run here") >= 3
    assert "not run here" in (project / "book" / "results" / "CUHK-PEDES.csv").read_text()


@pytest.fixture
def evidence(tmp_path):
    """A project with hand-made run files of the benchmark, the search and a variation."""
    (tmp_path / "notebooks").mkdir()
    runs = tmp_path / "runs"
    runs.mkdir()
    for method, r1 in (("zero-shot", 20.0), ("cskt", 55.0), ("full", 63.0)):
        for seed in (0, 1):
            selected = {
                "val": run_records.choice(1, r1 - 9),
                "test": run_records.choice(2, r1 + 1),
                "last": run_records.choice(3, r1 + seed),
            }
            fields = {"method": method, "seed": seed, "r1": r1, "selected": selected}
            run_records.run_file(runs, f"{method}-{seed}", **fields)
    for rate, val in ((0.003, 40.0), (0.01, 55.0), (0.03, 50.0)):
        run_records.search_file(tmp_path, "cskt", "CSKT", rate, val)
    record = run_records.variation_record()
    (tmp_path / "variation-cpu.json").write_text(json.dumps(record))
    return tmp_path


def test_pages_of_run_files(evidence):
    (evidence / "book" / "results").mkdir(parents=True)
    common = dict(runs=str(evidence / "runs"))
    text = execute(evidence, "benchmarks", **common, **PUBLISHED)
    assert f"All runs: {run_records.SETTING}; {run_records.INPUTS}." in text
    assert RANKS_MISSING in text
    assert "+10.00 ± 0.00" in text and "chosen on val" in text, "what test would have chosen"
    text = execute(evidence, "ablations", **common, transfer=str(BOOK_DATA / "generalisation.csv"))
    assert f"; epoch chosen on val; {run_records.SETTING}; {run_records.INPUTS}" in text
    assert "0.03" in text and "55.00" in text and "The run files hold no history" not in text
    text = execute(evidence, "noise", **common, published=str(BOOK_DATA / "noise.csv"))
    assert "not run here" in text and "75.94" in text
    text = execute(evidence, "variation", **common, variation=str(evidence / "variation-cpu.json"))
    assert "SynthPEDES-A (synthetic), seed 0" in text and "threads 2" in text
    assert "0.71 (2)" in text and "2.20 (3)" in text, "seeds of both; fp32 numerics of CSKT"


def test_a_page_without_run_files_says_so(evidence):
    text = execute(evidence, "variation", runs=str(evidence / "none"), variation="none.json")
    assert text.count(results.NOT_RUN) == 3
    text = execute(evidence, "robustness", results=str(evidence / "none"))
    assert text.count(results.NOT_RUN) == 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epoch": 3}, "unknown parameter epoch"),
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"dataset": "Market-1501"}, "Market-1501 is none of CUHK-PEDES"),
        ({"backbone": "ViT-X"}, "backbone 'ViT-X' is unknown"),
        ({"dataset": "CUHK-PEDES", "data_root": "nowhere"}, "nowhere"),
    ],
)
def test_a_bad_parameter_fails_with_one_sentence_and_leaves_no_run(
    project, tmp_path, parameters, message
):
    (tmp_path / "notebooks").mkdir()
    with pytest.raises(PapermillExecutionError, match=message):
        execute(tmp_path, "train", **parameters)
    assert not list(tmp_path.glob("runs/*/*"))
