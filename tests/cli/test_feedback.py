"""python -m cskt feedback: rows for people, a json file a run."""

from __future__ import annotations

import pytest

from cskt.analysis.simulated_users import MARKS, ROUNDS
from cskt.report.run_files import read_run_file

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


def test_simulated_users_mark_the_hits_of_a_run(cskt, finished, tmp_path):
    folder = tmp_path / "new" / "feedback"
    code, out, err = cskt("feedback", finished.folder, "--json", folder)
    assert code == 0, err
    assert "as asked" in out
    record = read_run_file(folder / f"{finished.folder.name}.json")
    assert record["kind"] == "feedback"
    of_run = finished.record["metrics"]["text_to_image"]
    assert record["metrics"]["text_to_image"] == of_run
    places = [(row["marks"], row["round"]) for row in record["rounds"]]
    assert places == [(marks, number) for marks in MARKS for number in range(ROUNDS + 1)]
    first = record["rounds"][0]
    assert first["R@1"] == pytest.approx(of_run["R@1"]), "round 0 is the test split as it is"
    assert first["mAP"] == pytest.approx(of_run["mAP"])
    assert record["weights"] == {"asked": 1.0, "right": 0.75, "wrong": 0.15}
