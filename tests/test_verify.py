"""What a training is compared with: the runs of the same settings, and a sentence where there are
none."""

import copy
import json

import pytest

from cskt import __main__ as cli
from cskt import verify
from cskt.config import TrainConfig
from cskt.errors import CSKTError

WEIGHTS = "d566b3ebf90adf55"
ASKED = TrainConfig.mini("SynthPEDES-A", precision="fp32", device="cpu", output="runs/verify")
FIGURES = (55.0, 56.0, 57.0)  # mean 56, standard deviation 1


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
    interval = verify.committed_interval(committed(), ASKED, 2, WEIGHTS)
    assert (interval.low, interval.high, interval.seeds) == (
        pytest.approx(54),
        pytest.approx(58),
        3,
    )
    assert interval.sentence(55.42) == (
        "reproduced: 55.4 within 54.0 to 58.0 (SynthPEDES-A, synthetic, R@1, mean +- 2 sd of 3 seeds)"
    )
    assert interval.sentence(58.1) == (
        "not reproduced: 58.1 outside 54.0 to 58.0 (SynthPEDES-A, synthetic, R@1, mean +- 2 sd of 3 seeds)"
    )


@pytest.mark.parametrize(
    ("value", "inside"),
    [(53.94, False), (53.96, True), (54.0, True), (58.04, True), (58.06, False)],
)
def test_the_sentence_is_true_as_it_is_printed(value, inside):
    assert verify.committed_interval(committed(), ASKED, 2, WEIGHTS).holds(value) is inside


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
    interval = verify.committed_interval([*foreign, *committed()], ASKED, 2, WEIGHTS)
    assert (interval.low, interval.seeds) == (pytest.approx(54), 3)


def test_a_run_that_was_told_to_use_the_processor_counts_wherever_it_ran():
    runs = committed()
    for run in runs:
        run["config"]["device"] = "cpu"
        run["hardware"] = {
            "platform": "Windows-10-10.0.19041-SP0",
            "device": "Intel64 Family 6, GenuineIntel",
        }
    assert verify.committed_interval(runs, ASKED, 2, WEIGHTS).seeds == 3


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
    with pytest.raises(CSKTError, match=message):
        verify.committed_interval(copy.deepcopy(records), ASKED, version, weights)


# The command


class Stand:
    """What the command sees instead of data and training; ``asked``: the configurations that were
    trained."""

    def __init__(self, version, value):
        self.version, self.asked = version, []
        self.metrics = {"metrics": {"text_to_image": {"R@1": value}}}

    def train(self, config, overwrite=False):
        self.asked.append((config, overwrite))
        return self


@pytest.fixture
def stand(monkeypatch, tmp_path):
    """``stand(value, version)``: a training that gives ``value``, beside the committed runs in
    tmp_path / "runs"."""
    (tmp_path / "runs").mkdir()
    for run in committed():
        (tmp_path / "runs" / f"{run['seed']}.json").write_text(json.dumps(run))

    def make(value=55.42, version=2):
        made = Stand(version, value)
        monkeypatch.setattr(cli.benchmarks, "load_dataset", lambda name: made)
        monkeypatch.setattr(cli.evaluation, "weights_fingerprint", lambda config: WEIGHTS)
        monkeypatch.setattr(cli, "_train", made.train)
        return made

    return make


def test_verify_trains_anew_and_its_exit_code_is_the_outcome(cskt, stand, tmp_path):
    made = stand(55.42)
    command = ("verify", "--records", tmp_path / "runs", "--output", tmp_path / "out")
    code, out, _ = cskt(*command)
    assert code == 0 and out.endswith(
        "reproduced: 55.4 within 54.0 to 58.0 (SynthPEDES-A, synthetic, R@1, mean +- 2 sd of 3 seeds)\n"
    )
    [(config, overwrite)] = made.asked
    assert overwrite and config == TrainConfig.mini(
        "SynthPEDES-A", seed=0, precision="fp32", device="cpu", output=str(tmp_path / "out")
    )
    stand(51.0)
    code, out, _ = cskt(*command)
    assert code == 1 and out.startswith("not reproduced: 51.0 outside 54.0 to 58.0 (")


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
    cskt, stand, tmp_path, arguments, version, message
):
    made = stand(version=version)
    code, out, err = cskt(
        "verify", "--records", tmp_path / "runs", "--output", tmp_path / "out", *arguments
    )
    assert code == 2 and out == "" and made.asked == []
    assert err.startswith("cskt: error: ") and message in err and err.count("\n") == 1
