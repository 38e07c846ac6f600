"""What a training is compared with: the runs of the same settings, and a sentence where there are
none."""

import copy
import dataclasses
import json
import types

import pytest

from cskt.cli import reproduce
from cskt.config import TrainConfig
from cskt.errors import RunError
from cskt.report import reproduced

WEIGHTS = "d566b3ebf90adf55"
ASKED = TrainConfig.mini("SynthPEDES-A", precision="fp32", device="cpu", output="runs/verify")
FIGURES = (55.0, 56.0, 57.0)  # mean 56, standard deviation 1
REPRODUCED = (
    "reproduced: 55.4 within 54.0 to 58.0 (SynthPEDES-A, synthetic, R@1, mean +- 2 sd of 3 seeds)"
)


def record(seed, value, **changes):
    """A run file of the default training; ``changes`` are fields of the record."""
    measures = {"text_to_image": {"R@1": value}}
    config = TrainConfig.mini("SynthPEDES-A", seed=seed).to_dict()
    return {
        "kind": "train",
        "dataset": "SynthPEDES-A",
        "synthetic": True,
        "method": "cskt",
        "seed": seed,
        "config": config,
        "selection": "val",
        "selected": {},
        "data_fingerprint": "d",
        "data_version": 2,
        "weights_fingerprint": WEIGHTS,
        "commit": "c",
        "precision": "fp32",
        "hardware": {"platform": "Linux-6.1-x86_64-with-glibc2.36", "device": "x86_64"},
        "duration_s": 1.0,
        "trainable_parameters": 1,
        "total_parameters": 2,
        "metrics": measures,
        "zero_shot": measures,
        **changes,
    }


def committed():
    return [record(seed, value) for seed, value in enumerate(FIGURES)]


def test_the_interval_is_two_standard_deviations_about_the_mean():
    interval = reproduced.committed_interval(committed(), ASKED, 2, WEIGHTS)
    assert interval.low == pytest.approx(54)
    assert interval.high == pytest.approx(58)
    assert interval.seeds == 3


def test_the_sentence_names_outcome_figure_and_interval():
    interval = reproduced.committed_interval(committed(), ASKED, 2, WEIGHTS)
    assert interval.sentence(55.42) == REPRODUCED
    assert interval.sentence(58.1).startswith("not reproduced: 58.1 outside 54.0 to 58.0 (")


@pytest.mark.parametrize(
    ("value", "inside"),
    [(53.94, False), (53.96, True), (54.0, True), (58.04, True), (58.06, False)],
)
def test_the_sentence_is_true_as_it_is_printed(value, inside):
    assert reproduced.committed_interval(committed(), ASKED, 2, WEIGHTS).holds(value) is inside


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"dataset": "SynthPEDES-B"},
        {"data_version": 1},
        {"weights_fingerprint": "other"},
        {"kind": "transfer"},
        {
            "hardware": {
                "platform": "Linux-6.1-x86_64-with-glibc2.36",
                "device": "NVIDIA H100 80GB HBM3",
            }
        },
        {"config": TrainConfig.mini("SynthPEDES-A", epochs=3).to_dict()},
        {"config": TrainConfig.mini("SynthPEDES-A", method="full").to_dict()},
        {"config": {**ASKED.to_dict(), "gone": 1}},
    ],
)
def test_runs_of_another_kind_do_not_count(changes):
    foreign = [record(seed, 0.0, **changes) for seed in range(3, 6)]
    interval = reproduced.committed_interval([*foreign, *committed()], ASKED, 2, WEIGHTS)
    assert interval.low == pytest.approx(54)
    assert interval.seeds == 3


def test_a_run_that_was_told_to_use_the_processor_counts_wherever_it_ran():
    runs = committed()
    for run in runs:
        run["config"]["device"] = "cpu"
        run["hardware"] = {
            "platform": "Windows-10-10.0.19041-SP0",
            "device": "Intel64 Family 6, GenuineIntel",
        }
    assert reproduced.committed_interval(runs, ASKED, 2, WEIGHTS).seeds == 3


@pytest.mark.parametrize(
    ("records", "version", "weights", "message"),
    [
        ([], 2, WEIGHTS, "hold 0 of cskt on SynthPEDES-A"),
        (committed()[:1], 2, WEIGHTS, "hold 1 of cskt on SynthPEDES-A"),
        ([record(0, 55.0), record(0, 56.0)], 2, WEIGHTS, "hold 1 of cskt"),
        (committed(), 3, WEIGHTS, "are of data version 2 but this is version 3"),
        (
            [record(0, 55.0, data_version=None)],
            2,
            WEIGHTS,
            "are of data version None but this is version 2",
        ),
        (
            committed(),
            2,
            "0123456789abcdef",
            "started from other weights of cskt-mini than 0123456789abcdef",
        ),
    ],
)
def test_nothing_to_compare_with_is_said(records, version, weights, message):
    with pytest.raises(RunError, match=message):
        reproduced.committed_interval(copy.deepcopy(records), ASKED, version, weights)


# The command


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """``stand_in(value, version)``: data of a version and a training that gives ``value``, beside
    the committed runs in tmp_path / "runs"; returns the list of what is trained."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for run in committed():
        (folder / f"{run['seed']}.json").write_text(json.dumps(run))

    def install(value=55.42, version=2):
        trained = []

        def load(name):
            return types.SimpleNamespace(version=version)

        def train(config, overwrite=False):
            trained.append((config, overwrite))
            record = {"metrics": {"text_to_image": {"R@1": value}}}
            return types.SimpleNamespace(record=record)

        monkeypatch.setattr(reproduce, "load_dataset", load)
        monkeypatch.setattr(reproduce, "weights_fingerprint", lambda config: WEIGHTS)
        monkeypatch.setattr(reproduce, "train_and_report", train)
        return trained

    return install


def test_verify_trains_anew_and_its_exit_code_is_the_outcome(cskt, stand_in, tmp_path):
    trained = stand_in(55.42)
    command = ("verify", "--records", tmp_path / "runs", "--output", tmp_path / "out")
    code, out, _ = cskt(*command)
    assert code == 0
    assert out == REPRODUCED + "\n"
    [(config, overwrite)] = trained
    assert overwrite
    expected = dataclasses.replace(ASKED, seed=0, output=str(tmp_path / "out"))
    assert config == expected
    stand_in(51.0)
    code, out, _ = cskt(*command)
    assert code == 1
    assert out.startswith("not reproduced: 51.0 outside 54.0 to 58.0 (")


@pytest.mark.parametrize(
    ("arguments", "version", "message"),
    [
        ((), 1, "are of data version 2 but this is version 1"),
        (("--dataset", "SynthPEDES-B"), 2, "hold 0 of cskt on SynthPEDES-B"),
        (
            ("--dataset", "CUHK-PEDES"),
            2,
            "CUHK-PEDES cannot be verified; choose one of SynthPEDES-A",
        ),
        (("--records", "nowhere"), 2, "hold 0 of cskt on SynthPEDES-A"),
    ],
)
def test_without_anything_to_compare_with_nothing_is_trained(
    cskt, stand_in, tmp_path, arguments, version, message
):
    trained = stand_in(version=version)
    command = ("verify", "--records", tmp_path / "runs", "--output", tmp_path / "out")
    code, out, err = cskt(*command, *arguments)
    assert code == 2
    assert out == ""
    assert trained == []
    assert err.startswith("cskt: error: ")
    assert message in err
    assert err.count("\n") == 1
