"""The command line: what it does with a tiny run, and one line instead of a traceback for bad
input."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from cskt import __main__ as cli
from cskt import publishing, results
from cskt.backbones import create_backbone
from cskt.config import METHODS, MINI, CSKTConfig, TrainConfig
from cskt.data import synthetic
from cskt.errors import CSKTError
from cskt.model import CSKT
from cskt.runs import Run, run_name
from tests.tiny_runs import (
    BACKBONE,
    IMAGE_SIZE,
    assert_same_tensors,
    register_backbone,
    tiny_config,
    write_dataset,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(tmp_path):
    register_backbone(tmp_path)
    data = write_dataset(tmp_path / "CUHK-PEDES")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config(data, tmp_path / "run").to_dict()))
    return path


def test_train_then_evaluate(cskt, settings, tmp_path):
    code, out, err = cskt("train", "--config", settings, "--epochs", 2)
    assert code == 0, err
    assert "epoch 2: loss" in out and "zero-shot" in out
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["config"]["epochs"] == 2
    code, out, err = cskt("evaluate", tmp_path / "run")
    assert code == 0, err
    assert json.loads(out)["metrics"] == record["metrics"]
    code, out, _ = cskt("evaluate", tmp_path / "run", "--split", "val")
    assert code == 0 and json.loads(out)["metrics"] == record["val_metrics"]


def test_export_then_evaluate_the_folder(cskt, settings, tmp_path):
    """A published folder says what was done, hides this machine's folders, and gives the run's
    figures."""
    assert cskt("train", "--config", settings, "--epochs", 1)[0] == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    code, out, err = cskt("export", tmp_path / "run", tmp_path / "hub")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "adapter.safetensors",
        "config.json",
        "run.json",
    ]
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.library_name == "cskt"
    assert {
        result.metric_name: result.metric_value for result in card.data.eval_results
    } == pytest.approx(
        {
            name: round(record["metrics"]["text_to_image"][name], 2)
            for name in ("R@1", "R@5", "R@10", "mAP")
        }
    )
    published = "".join(
        (tmp_path / "hub" / name).read_text() for name in ("README.md", "run.json", "config.json")
    )
    assert str(tmp_path) not in published and record["data_fingerprint"][:12] in card.text
    data = ("--dataset", "CUHK-PEDES", "--data-root", record["config"]["data_root"])
    code, out, err = cskt("evaluate", tmp_path / "hub")
    assert code == 2 and "knows no data; name them with --dataset" in err
    code, out, err = cskt("evaluate", tmp_path / "hub", *data)
    assert (
        code == 2 and "another backbone" in err
    )  # random weights are made anew: the fingerprint notices
    code, out, err = cskt("export", tmp_path / "run", tmp_path / "half", "--bf16")
    assert code == 0, err
    sizes = [(tmp_path / name / "adapter.safetensors").stat().st_size for name in ("half", "hub")]
    assert sizes[0] < 0.6 * sizes[1]


def test_what_is_published_does_not_say_where_the_weights_lay(cskt, settings, tmp_path):
    weights = tmp_path / "secret" / "weights.pt"
    weights.parent.mkdir()
    torch.manual_seed(3)
    torch.save(create_backbone(BACKBONE, image_size=IMAGE_SIZE).state_dict(), weights)
    assert cskt("train", "--config", settings, "--epochs", 1, "--pretrained", weights)[0] == 0
    record = Run.load(tmp_path / "run").metrics
    assert record["config"]["pretrained"] == str(weights)
    public = publishing.public_record(record)
    assert public["config"]["pretrained"] == "weights.pt" and str(tmp_path) not in json.dumps(
        public
    )
    assert public["weights_fingerprint"] == record["weights_fingerprint"]
    assert publishing.public_record(public) == public
    assert cskt("export", tmp_path / "run", tmp_path / "hub")[0] == 0
    for name in ("README.md", "run.json", "config.json"):
        assert str(tmp_path) not in (tmp_path / "hub" / name).read_text()
    data = ("--dataset", "CUHK-PEDES", "--data-root", record["config"]["data_root"])
    code, _, err = cskt("evaluate", tmp_path / "hub", *data)
    assert code == 2 and "needs the backbone weights 'weights.pt', which are not there" in err
    code, out, err = cskt("evaluate", tmp_path / "hub", *data, "--pretrained", weights)
    assert code == 0, err
    assert json.loads(out)["metrics"] == record["metrics"]


def test_checkpoints_of_the_authors_go_both_ways(cskt, settings, tmp_path):
    code, _, err = cskt(
        "train",
        "--config",
        settings,
        "--epochs",
        1,
        "--backbone",
        MINI,
        "--method",
        "cskt",
        "--set=image_size=(32, 16)",
        "--set=pretrained=None",
        "--set=cskt={'prompt_length': 3}",
    )
    assert code == 0, err
    assert cskt("export", tmp_path / "run", tmp_path / "theirs" / "best.pth", "--reference")[0] == 0
    size = ("--height", 32, "--width", 16, "--backbone", MINI)
    code, _, err = cskt(
        "import-checkpoint", tmp_path / "theirs" / "best.pth", tmp_path / "ours", *size
    )
    assert code == 0, err
    run, ours = Run.load(tmp_path / "run").load_model(), CSKT.from_pretrained(tmp_path / "ours")
    assert ours.config.prompt_length == 3 and ours.config.reduction == run.config.reduction
    assert_same_tensors(run.trainable_state(), ours.trainable_state())
    state = torch.load(tmp_path / "theirs" / "best.pth")
    torch.save(
        {"model": {name: tensor.half() for name, tensor in state.items()}}, tmp_path / "half.pth"
    )
    code, _, err = cskt("import-checkpoint", tmp_path / "half.pth", tmp_path / "halved", *size)
    assert code == 0, err  # what fp16 rounds off the backbone makes it no other backbone
    halved = {name: tensor.half().float() for name, tensor in run.trainable_state().items()}
    assert_same_tensors(CSKT.from_pretrained(tmp_path / "halved").trainable_state(), halved)
    state["base_model.ln_final.weight"] = 1.1 * state["base_model.ln_final.weight"]
    torch.save(state, tmp_path / "foreign.pth")
    code, _, err = cskt("import-checkpoint", tmp_path / "foreign.pth", tmp_path / "no", *size)
    assert code == 2 and "1 tensors differ, such as base_model.ln_final.weight" in err
    torch.save({"model": {"conv.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    code, _, err = cskt("import-checkpoint", tmp_path / "other.pth", tmp_path / "no", *size)
    assert (
        code == 2
        and "no prompts and adapters in the authors' names" in err
        and not (tmp_path / "no").exists()
    )


def test_reproduce_trains_what_is_missing_and_copies_the_records(cskt, settings, tmp_path):
    values = yaml.safe_load(settings.read_text())
    changes = [
        f"--set={name}={values[name]}"
        for name in ("image_size", "cskt", "batch_size", "device", "precision")
    ]
    command = (
        "reproduce",
        "--datasets",
        "CUHK-PEDES",
        "--methods",
        "zero-shot,cskt",
        "--data-root",
        values["data_root"],
        "--backbone",
        values["backbone"],
        "--pretrained",
        "random",
        "--set",
        "epochs=1",
        "--records",
        "records/runs",
        "--set=selection=val",
        *changes,
    )
    code, out, err = cskt(*command, "--seeds", 1)
    assert code == 0 and out.count("epoch 1: ") == 1, err
    code, out, err = cskt(*command, "--seeds", 2)
    assert code == 0 and out.count("epoch 1: ") == 1 and out.count("(zero-shot ") == 3, (
        err
    )  # seed 0 was finished
    for path in (tmp_path / "records" / "runs").glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "runs" / path.stem / "queries.npz").read_bytes()
    copies = sorted((tmp_path / "records" / "runs").glob("*.json"))
    assert len(list((tmp_path / "records" / "runs").iterdir())) == 2 * len(copies)
    assert [path.stem for path in copies] == sorted(
        path.name for path in (tmp_path / "runs").glob("CUHK*")
    )
    for path in copies:
        record = json.loads((tmp_path / "runs" / path.stem / "metrics.json").read_text())
        record["config"]["data_root"] = None  # a folder of this machine is nobody else's business
        assert json.loads(path.read_text()) == record
    asked = [
        (record["method"], record["seed"])
        for record in (json.loads(path.read_text()) for path in copies)
    ]
    assert asked == [("cskt", 0), ("cskt", 1), ("zero-shot", 0)]


def test_grids_say_what_varies(cskt, settings, tmp_path):
    values = yaml.safe_load(settings.read_text())
    write_dataset(tmp_path / "data" / "CUHK-PEDES")
    other = write_dataset(tmp_path / "data" / "RSTPReid", seed=1)
    (other / "reid_raw.json").rename(other / "data_captions.json")
    changes = [
        f"--set={name}={values[name]}"
        for name in ("image_size", "batch_size", "device", "precision")
    ]
    command = (
        "reproduce",
        "--data-root",
        tmp_path / "data",
        "--backbone",
        values["backbone"],
        "--pretrained=random",
        "--set",
        "epochs=1",
        "--records",
        "records",
        "--seeds",
        1,
        *changes,
    )
    code, _, err = cskt(
        *command,
        "--datasets",
        "CUHK-PEDES",
        "--grid",
        "reduction",
        "--set=cskt={'prompt_length': 2}",
    )
    assert code == 0, err
    records = [
        json.loads(path.read_text()) for path in (tmp_path / "records" / "reduction").glob("*.json")
    ]
    assert {
        (r["row"], r["config"]["cskt"]["reduction"], r["config"]["cskt"]["prompt_length"])
        for r in records
    } == {("4", 4, 2), ("8", 8, 2), ("16", 16, 2), ("32", 32, 2)}
    code, _, err = cskt(
        *command, "--datasets", "CUHK-PEDES,RSTPReid", "--grid", "transfer", "--methods", "cskt"
    )
    assert code == 0, err
    assert set(results.read_grid(tmp_path / "records", "transfer")["row"]) == {"CSKT"}
    pairs = {}
    for path in (tmp_path / "records" / "transfer").iterdir():
        record = json.loads(path.read_text())
        pairs[record["source"], record["dataset"]] = record["metrics"]["text_to_image"]["queries"]
    assert set(pairs) == {("CUHK-PEDES", "RSTPReid"), ("RSTPReid", "CUHK-PEDES")}
    code, _, err = cskt(*command, "--grid", "reduction", "--methods", "cskt")
    assert code == 2 and "--methods belongs to the grids" in err
    code, _, err = cskt(*command, "--grid", "everything")
    assert code == 2 and "grid 'everything' is unknown; choose one of benchmark" in err


@pytest.mark.parametrize(
    ("options", "datasets", "backbone"),
    [
        ({}, ["SynthPEDES-A", "SynthPEDES-B", "SynthPEDES-C"], MINI),
        ({"data_root": "DIR"}, ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"], "ViT-B-16-quickgelu"),
        ({"datasets": "RSTPReid", "data_root": "DIR"}, ["RSTPReid"], "ViT-B-16-quickgelu"),
        ({"datasets": "SynthPEDES-B", "data_root": "DIR"}, ["SynthPEDES-B"], MINI),
        (
            {"data_root": "DIR", "backbone": "ViT-L-14"},
            ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"],
            "ViT-L-14",
        ),
    ],
)
def test_reproduce_takes_the_real_data_where_they_are(
    monkeypatch, tmp_path, options, datasets, backbone
):
    asked = []

    def load(name, root):
        val = object()
        return types.SimpleNamespace(
            synthetic=name in cli.SYNTHETIC, val=val, test=val if name == "ICFG-PEDES" else object()
        )

    def train(config, **options):
        asked.append(config)
        folder = tmp_path / f"run{len(asked)}"
        folder.mkdir()
        (folder / "queries.npz").write_bytes(b"")
        return types.SimpleNamespace(folder=folder, metrics={"config": {}})

    monkeypatch.setattr(cli, "_train", train)
    monkeypatch.setattr(cli.benchmarks, "load_dataset", load)
    cli.reproduce(methods="cskt,zero-shot", seeds=2, records=tmp_path / "records", **options)
    assert {config.backbone for config in asked} == {backbone}
    expected = []
    for seed in (0, 1):  # all of seed 0 first: an interrupted call leaves whole seeds
        for (
            name
        ) in datasets:  # the epoch is chosen on val and on test where these are two real splits
            both = name in ("CUHK-PEDES", "RSTPReid")
            expected += [
                (name, "cskt", selection, seed) for selection in ("val", "test")[: 1 + both]
            ]
            if seed == 0:
                expected.append((name, "zero-shot", "val", 0))
    assert [(c.dataset, c.method, c.selection, c.seed) for c in asked] == expected


def tiny_reproduction(tmp_path, name, *options):
    """Arguments: two methods on tiny images with the embedded backbone, which a new process knows
    too."""
    write_dataset(tmp_path / "data" / "CUHK-PEDES")
    return (
        "reproduce",
        "--datasets",
        "CUHK-PEDES",
        "--data-root",
        tmp_path / "data",
        "--backbone",
        MINI,
        "--methods",
        "dat,full",
        "--records",
        tmp_path / name,
        "--set=selection=last",
        "--set=epochs=1",
        "--set=image_size=(32, 16)",
        "--set=batch_size=5",
        "--set=device=cpu",
        "--set=precision=fp32",
        "--set=pretrained=None",
        *options,
    )


def from_a_shell(command):
    """As a user calls it, where worker processes cannot import ``__main__``; exit code and
    stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "cskt", *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    return done.returncode, done.stderr


def test_runs_side_by_side_make_the_same_records(cskt, tmp_path, monkeypatch):
    records, threads = {}, torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # as each of the processes
        for jobs in (1, 2):
            (tmp_path / f"jobs{jobs}").mkdir()
            monkeypatch.chdir(tmp_path / f"jobs{jobs}")  # its runs are in runs/
            command = tiny_reproduction(
                tmp_path, f"records{jobs}", "--seeds", 2, "--jobs", jobs, "--methods=dat"
            )
            code, err = cskt(*command)[::2] if jobs == 1 else from_a_shell(command)
            assert code == 0, err
            records[jobs] = {path.name: path for path in (tmp_path / f"records{jobs}").iterdir()}
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert len(records[1]) == 4 and records[1].keys() == records[2].keys()
    for name, path in records[1].items():
        if path.suffix == ".npz":
            assert path.read_bytes() == records[2][name].read_bytes()
            continue
        first, second = json.loads(path.read_text()), json.loads(records[2][name].read_text())
        assert first["hardware"] == second["hardware"] and second["hardware"]["threads"] == 1
        assert {k: v for k, v in first.items() if k not in ("started", "duration_s")} == {
            k: v for k, v in second.items() if k not in ("started", "duration_s")
        }


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_is_named_once_the_others_are_done(cskt, tmp_path, jobs):
    """The folder of one run holds something else."""
    command = tiny_reproduction(tmp_path, "records", "--seeds", 1, "--jobs", jobs)
    config = cli.train_config(
        {"method": "dat"},
        {"dataset": "CUHK-PEDES", "seed": 0},
        [
            option.removeprefix("--set=")
            for option in map(str, command)
            if option.startswith("--set=")
        ],
    )
    name = run_name(config)
    (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / name / "letter.txt").write_text("dear")
    code, _, err = cskt(*command)
    assert code == 2 and err.splitlines()[-1].startswith(
        f"cskt: error: 1 of 2 runs failed: {name}: runs/{name} holds"
    )
    assert "Traceback" not in err
    records = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    assert [record["method"] for record in records] == ["full"]


def test_a_fault_of_the_code_is_logged_and_does_not_stop_the_other_runs(
    cskt, settings, tmp_path, monkeypatch, caplog
):
    def train(config, **options):
        if config.method == "dat":
            raise RuntimeError("two\nlines")
        raise CSKTError("full is wrong.")

    monkeypatch.setattr(cli, "_train", train)
    code, _, err = cskt(*tiny_reproduction(tmp_path, "records", "--seeds", 1))
    assert code == 2 and "2 of 2 runs failed: " in err
    assert ": RuntimeError: two lines; CUHK-PEDES-full-" in err and err.endswith(
        ": full is wrong.\n"
    )
    assert caplog.records[-1].exc_info[0] is RuntimeError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--dataset", "CUHK"), "dataset must be 'CUHK-PEDES'"),
        (("train", "--dataset", "CUHK-PEDES", "--data-root", "nowhere"), "nowhere"),
        (
            (
                "train",
                "--dataset",
                "CUHK-PEDES",
                "--backbone",
                "ViT-Z",
                "--data-root",
                "CUHK-PEDES",
            ),
            "ViT-Z",
        ),
        (("train", "--method", "magic"), "method 'magic' is unknown"),
        (("train", "--epochs", "0"), "epochs must be"),
        (("train", "--seed", "-1"), "seed must be"),
        (("train", "--config", "absent.yaml"), "absent.yaml cannot be read"),
        (("train", "--config", "broken.yaml"), "broken.yaml is not valid yaml"),
        (("train", "--config", "list.yaml"), "list.yaml must hold"),
        (("train", "--config", "surplus.yaml"), "has no field epohcs"),
        (("train", "--config", "method.yaml"), "cskt must be a mapping"),
        (("train", "--set", "epohcs=3"), "has no field epohcs"),
        (("train", "--set", "batch_size"), "--set batch_size must be"),
        (("train", "--set", "batch_size=many"), "batch_size must be"),
        (("reproduce", "--methods", "cskt,magic"), "method 'magic' is unknown"),
        (("reproduce", "--records", "tiny.yaml"), "tiny.yaml cannot be written"),
        (("evaluate", "nowhere"), "nowhere holds no run"),
        (("evaluate", "nowhere", "--split", "dev"), "--split must be"),
        (("render", "CUHK-PEDES"), "CUHK-PEDES cannot be rendered"),
        (("pretrain-mini", "--samples", "1"), "samples"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cskt, settings, tmp_path, arguments, message):
    for name, content in (
        ("broken", "a: ["),
        ("list", "- 1"),
        ("surplus", "epohcs: 3"),
        ("method", "cskt: 3"),
    ):
        (tmp_path / f"{name}.yaml").write_text(content)
    code, out, err = cskt(*arguments)
    assert code == 2 and out == ""
    assert err.startswith("cskt: error: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert not [path for path in tmp_path.glob("runs/*") if not path.name.startswith(".")]


def test_wrong_usage_is_exit_code_2(cskt):
    code, _, err = cskt("train", "--epochs", "many")
    assert code == 2 and "Traceback" not in err


def test_render_prints_the_folders(cskt, tmp_path, monkeypatch):
    asked = []

    def rendered(name, root):
        asked.append((name, root))
        return tmp_path / name

    monkeypatch.setattr(synthetic, "synthetic_dataset", rendered)
    code, out, _ = cskt("render", "SynthPEDES-B")
    assert (
        code == 0 and out == f"{tmp_path / 'SynthPEDES-B'}\n" and asked == [("SynthPEDES-B", None)]
    )
    cskt("render")
    assert [name for name, _ in asked[1:]] == ["SynthPEDES-A", "SynthPEDES-B", "SynthPEDES-C"]


# From options to a configuration


def test_defaults_are_the_backbones_own():
    assert cli.train_config({}, {"epochs": None}) == TrainConfig.mini()
    assert cli.train_config({}, {"backbone": "ViT-B-16-quickgelu"}) == TrainConfig.paper()
    assert cli.train_config({}, {"seed": 3}) == TrainConfig.mini(seed=3)


@pytest.mark.parametrize("method", METHODS)
def test_written_configuration_reads_back(method):
    config = TrainConfig.mini(method=method, seed=2)
    assert cli.train_config(config.to_dict(), {}) == config


def test_options_override_the_file_and_a_partial_file_the_defaults():
    file = {"epochs": 9, "cskt": {"prompt_length": 2}}
    config = cli.train_config(file, {"epochs": 4})
    assert config == TrainConfig.mini(epochs=4, cskt=CSKTConfig.mini(prompt_length=2))
    assert config.backbone == MINI


@pytest.mark.parametrize("method", METHODS)
def test_method_option_brings_its_own_switches(method):
    for written in METHODS:
        file = TrainConfig.mini(method=written).to_dict()
        assert cli.train_config(file, {"method": method}) == TrainConfig.mini(method=method)


def test_ablation_switches_in_a_file_are_kept():
    file = {"method": "cskt", "cskt": {"text_adapter": False}}
    assert not cli.train_config(file, {"seed": 1}).cskt.text_adapter


def test_method_settings_must_be_a_mapping():
    with pytest.raises(CSKTError, match="cskt must be a mapping"):
        cli.train_config({"cskt": [1]}, {})


def test_any_field_can_be_set():
    words = [
        "learning_rate=3e-4",
        "image_size=(64, 32)",
        "selection=test",
        "cskt={'prompt_length': 2}",
    ]
    config = cli.train_config({"cskt": {"text_scale": 2.0}}, {}, words)
    assert config == TrainConfig.mini(
        learning_rate=3e-4,
        image_size=(64, 32),
        selection="test",
        cskt=CSKTConfig.mini(prompt_length=2, text_scale=2.0),
    )


def test_each_method_has_its_own_learning_rate():
    for backbone in (MINI, "ViT-B-16-quickgelu"):
        for method in ("full", "cskt"):
            expected = TrainConfig.for_backbone(backbone, method=method)
            assert cli.train_config({}, {"backbone": backbone, "method": method}) == expected
