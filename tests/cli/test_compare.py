"""python -m cskt compare: text for people, json for programs, one sentence for what is wrong."""

import json

import numpy as np
import pytest


@pytest.fixture
def saved(tmp_path):
    """``saved(name, first_ranks, method)`` -> a run folder with what compare needs of it."""

    def save(name, first_ranks, method):
        folder = tmp_path / name
        folder.mkdir()
        record = {"dataset": "D", "data_fingerprint": "f", "split": "test", "method": method}
        (folder / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
        ranks = np.array(first_ranks)
        np.savez(
            folder / "queries.npz",
            query_identities=np.arange(len(ranks)),
            first_rank=ranks,
            average_precision=1 / ranks,
            inverse_negative_penalty=1 / ranks,
        )
        return folder

    return save


def test_two_runs_are_compared_in_text(cskt, saved):
    a, b = saved("a", [1] * 20, "cskt"), saved("b", [9] * 20, "full")
    code, output, _ = cskt("compare", a, b)
    assert code == 0
    assert "of 20 queries: only cskt 20, only full 0, both 0, neither 0" in output
    assert "+100.00 points of R@1" in output and "differ reliably" in output


def test_json_holds_every_measure(cskt, saved):
    a, b = saved("a", [1, 2, 1], "cskt"), saved("b", [1, 1, 9], "full")
    code, output, _ = cskt("compare", a, b, "--json")
    values = json.loads(output)
    assert code == 0
    assert list(values["table"]) == ["R@1", "R@5", "R@10", "mAP", "mINP"]
    assert values["told_apart"] is False


def test_several_seeds_stand_with_commas_between(cskt, saved):
    a = [saved(f"a{seed}", [1, 1, seed + 1], "cskt") for seed in range(2)]
    b = [saved(f"b{seed}", [1, 3, seed + 1], "full") for seed in range(3)]
    code, output, _ = cskt("compare", f"{a[0]}, {a[1]}", ",".join(map(str, b)))
    assert code == 0
    assert "2 and 3 seeds, 3 identities" in output


def test_what_is_wrong_is_one_line(cskt, saved, tmp_path):
    a = saved("a", [1, 2], "cskt")
    for wrong in (tmp_path / "none", f"{a},"):
        code, output, errors = cskt("compare", a, wrong)
        assert (code, output) == (2, "")
        assert errors.startswith("cskt: error: ") and len(errors.splitlines()) == 1


def test_the_version_is_printed(cskt):
    code, output, _ = cskt("--version")
    assert code == 0 and output.startswith("cskt 0.")
