"""The variation benchmark with a training that is made up: processes, what is kept, what is
skipped, the file."""

import dataclasses
import json
import threading
import types
from pathlib import Path

import pytest
import torch

from benchmarks import variation
from cskt.config import TrainConfig
from cskt.errors import CSKTError

# Stands for benchmarks/variation.py in a row's process. Its R@1 says what reached that process.
STUB = """
import os, sys, types
sys.path.insert(0, {root!r})
from benchmarks import variation
from cskt.errors import CSKTError

def train(config, progress=None):
    if config.seed == 7:
        raise CSKTError("seed 7 is unlucky.")
    value = 10.0 * config.epochs + ("ATEN_CPU_CAPABILITY" in os.environ)
    measures = dict.fromkeys(variation.MEASURES, value)
    last = dict(measures, queries=4)
    chosen = dict(measures, mAP=value / 2, intervals=dict())
    selected = dict(last=dict(epoch=2, metrics=dict(text_to_image=last, image_to_text=last)),
                    val=dict(epoch=1, metrics=dict(text_to_image=chosen, image_to_text=last)))
    history = [{{"epoch": 1, "loss": 1.0, "val R@1": 30.0, "test R@1": value, "seconds": 1.0}}]
    record = dict(selected=selected, precision=config.precision)
    return types.SimpleNamespace(record=record, history=history)

variation.train = train
try:
    variation.typer.run(variation.main)
except CSKTError as error:
    sys.exit(f"variation: error: {{error}}")
"""


@pytest.fixture(autouse=True)
def dataset(monkeypatch):
    """What the benchmark asks of the data; a test may change it."""
    data = types.SimpleNamespace(version=2, fingerprint="data")
    monkeypatch.setattr(variation, "load_dataset", lambda name: data)
    return data


@pytest.fixture
def two(monkeypatch):
    """Two numerics that every chip has, in place of all."""
    names = ("this chip, 2 threads", "default, 1 thread")
    monkeypatch.setattr(variation, "NUMERICS", {name: variation.NUMERICS[name] for name in names})
    return names


@pytest.fixture
def made(monkeypatch):
    """Rows without processes; the list of what was asked for. ``made.fails``: the numerics whose
    row does not come."""
    asked = []

    def start_row(method, name, settings):
        if name == row.fails:
            raise CSKTError(f"{name} failed.")
        asked.append((method, name, *settings))
        measures = dict.fromkeys(variation.MEASURES, 50.0 + len(asked))
        return {
            "method": method,
            "numerics": name,
            "precision": variation.NUMERICS[name].precision,
            "last": measures,
            "val": measures,
            "dirty": False,
            "duration_s": 1.0,
        }

    row = types.SimpleNamespace(asked=asked, fails=None)
    monkeypatch.setattr(variation, "start_row", start_row)
    return row


def capabilities(monkeypatch, *names):
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True), raising=False
    )


def test_the_numerics_stand_for_six_machines_or_more():
    variables = [numerics.variables() for numerics in variation.NUMERICS.values()]
    assert {row.get("ATEN_CPU_CAPABILITY") for row in variables} == {
        None,
        "default",
        "avx2",
        "avx512",
    }
    assert {row["OMP_NUM_THREADS"] for row in variables} == {"1", "2"}
    assert any(row.get("ONEDNN_MAX_CPU_ISA") == "AVX2" for row in variables)
    assert {numerics.precision for numerics in variation.NUMERICS.values()} == {"fp32", "bf16"}
    assert all(set(row) <= set(variation.VARIABLES) for row in variables)
    different = {(*sorted(n.variables().items()), n.precision) for n in variation.NUMERICS.values()}
    assert len(different) == len(variation.NUMERICS) >= 6


@pytest.mark.parametrize(
    ("chip", "skipped"),
    [
        ((), {"avx2", "avx512", "oneDNN avx2", "avx2 in all libraries", "bf16"}),
        (("avx2", "fma3"), {"avx512", "bf16"}),
        (("avx2", *variation.AVX512), {"bf16"}),
        (("avx2", *variation.AVX512, "avx512_bf16"), set()),
    ],
)
def test_what_a_chip_cannot_do_is_skipped(monkeypatch, chip, skipped):
    capabilities(monkeypatch, *chip)
    found = {
        name.partition(", ")[0]: variation.impossible(numerics)
        for name, numerics in variation.NUMERICS.items()
    }
    assert {name for name, why in found.items() if why} == skipped
    assert all(why.startswith("this chip ") for why in found.values() if why)


def test_the_configurations_differ_in_what_is_compared_only():
    for method in variation.METHODS:
        config = variation.row_config(
            method, variation.NUMERICS["bf16, 1 thread"], "SynthPEDES-B", 3, None, "x"
        )
        default = TrainConfig.mini("SynthPEDES-B", method=method, seed=3)
        assert config == dataclasses.replace(default, precision="bf16", device="cpu", output="x")
    assert (
        variation.row_config("cskt", variation.Numerics(), "SynthPEDES-A", 0, 1, None).epochs == 1
    )


@pytest.mark.slow
def test_every_row_is_trained_in_a_process_with_its_own_numerics(monkeypatch, tmp_path, two):
    root = Path(variation.__file__).resolve().parents[1]
    (tmp_path / "stub.py").write_text(STUB.format(root=str(root)))
    monkeypatch.setattr(variation, "SCRIPT", tmp_path / "stub.py")
    monkeypatch.setattr(variation, "METHODS", ("cskt",))
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")  # of the caller, which no row takes over
    output = tmp_path / "new" / "variation-cpu.json"
    variation.main(output, "SynthPEDES-A", epochs=3, jobs=2)
    record = json.loads(output.read_text())
    assert {
        "kind",
        "dataset",
        "data_version",
        "data_fingerprint",
        "weights_fingerprint",
        "seed",
        "commit",
        "dirty",
        "hardware",
        "versions",
        "started",
        "duration_s",
        "skipped",
        "rows",
    } <= set(record)
    assert (record["kind"], record["dataset"], record["data_version"]) == (
        "variation",
        "SynthPEDES-A",
        2,
    )
    threads, plain = record["rows"]
    assert (threads["numerics"], plain["numerics"]) == two and threads["method"] == plain[
        "method"
    ] == "cskt"
    assert plain["environment"] == {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    assert (plain["threads"], plain["capability"], plain["precision"]) == (1, "DEFAULT", "fp32")
    assert plain["last"] == dict.fromkeys(variation.MEASURES, 31.0)
    assert plain["val"] == {**dict.fromkeys(variation.MEASURES, 31.0), "mAP": 15.5}
    assert plain["history"] == [{"epoch": 1, "val R@1": 30.0, "test R@1": 31.0}]
    assert threads["environment"] == {"OMP_NUM_THREADS": "2"} and threads["threads"] == 2
    assert threads["last"]["R@1"] == 30.0
    with pytest.raises(
        CSKTError, match=r"cskt, .* ended with exit code 1 \(variation: error: seed 7 is unlucky"
    ):
        variation.main(output, "SynthPEDES-A", seed=7)
    assert json.loads(output.read_text()) == record


def test_finished_rows_are_kept(tmp_path, two, made, dataset, capsys):
    output = tmp_path / "variation-cpu.json"
    made.fails = two[1]  # rows of two threads come first
    with pytest.raises(CSKTError, match="default, 1 thread failed"):
        variation.main(output, "SynthPEDES-A")
    assert len(json.loads(output.read_text())["rows"]) == len(made.asked) == 2
    made.fails = None
    variation.main(output, "SynthPEDES-A")
    record, count = json.loads(output.read_text()), len(made.asked)
    assert [(row["method"], row["numerics"]) for row in record["rows"]] == [
        (method, name) for name in two for method in ("cskt", "full")
    ] and count == 4
    variation.main(output, "SynthPEDES-A")
    assert len(made.asked) == count and json.loads(output.read_text()) == record
    shown = capsys.readouterr().out
    assert (
        "4 of 4 rows are there" in shown
        and "cskt: sd of R@1 over 2 fp32 numerics 1.41 at the last epoch" in shown
    )
    for change in ({"dataset": "SynthPEDES-B"}, {"seed": 1}, {"epochs": 1}):
        variation.main(output, **{"dataset": "SynthPEDES-A", **change})
    dataset.fingerprint = "other"
    variation.main(output, "SynthPEDES-A")
    assert len(made.asked) == 5 * count
    assert "was made with other data_fingerprint, settings: all its rows" in capsys.readouterr().out


def test_rows_of_one_thread_go_side_by_side_and_others_alone(monkeypatch, tmp_path):
    names = ("this chip, 2 threads", "this chip, 1 thread")
    monkeypatch.setattr(variation, "NUMERICS", {name: variation.NUMERICS[name] for name in names})
    pair, running, most = threading.Barrier(2, timeout=60), [], {}

    def start_row(method, name, settings):
        running.append(name)
        if name == "this chip, 1 thread":
            pair.wait()  # would break if the other row did not run at the same time
        most[name] = max(most.get(name, 0), len(running))
        if name == "this chip, 1 thread":
            pair.wait()
        running.remove(name)
        measures = dict.fromkeys(variation.MEASURES, 50.0)
        return {
            "method": method,
            "numerics": name,
            "precision": "fp32",
            "last": measures,
            "val": measures,
            "dirty": False,
            "duration_s": 1.0,
        }

    monkeypatch.setattr(variation, "start_row", start_row)
    variation.main(tmp_path / "rows.json", "SynthPEDES-A", jobs=2)
    assert most == {"this chip, 1 thread": 2, "this chip, 2 threads": 1}


def test_bad_input_is_said_before_anything_is_trained(tmp_path, made):
    with pytest.raises(CSKTError, match="CUHK-PEDES is not a SynthPEDES domain"):
        variation.main(tmp_path / "rows.json", "CUHK-PEDES")
    for content in ("[]", "{"):
        (tmp_path / "rows.json").write_text(content)
        with pytest.raises(CSKTError, match="rows.json is not a file of this benchmark"):
            variation.main(tmp_path / "rows.json", "SynthPEDES-A")
        assert (tmp_path / "rows.json").read_text() == content
    assert made.asked == []


def test_what_this_chip_cannot_do_is_listed(monkeypatch, tmp_path, made):
    capabilities(monkeypatch, "avx2", "fma3")
    variation.main(tmp_path / "rows.json", "SynthPEDES-A")
    record = json.loads((tmp_path / "rows.json").read_text())
    assert record["skipped"] == {
        "avx512, 1 thread": "this chip has no AVX512",
        "bf16, 1 thread": "this chip does not compute bf16 natively",
    }
    assert len(record["rows"]) == 2 * (len(variation.NUMERICS) - 2)
