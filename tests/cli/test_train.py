"""The command line: what it does with a tiny run, and one line instead of a traceback for bad
input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from cskt import synthetic
from cskt.cli import train
from cskt.config import MINI
from cskt.model import CSKT
from cskt.model.backbone import create_backbone
from cskt.report import card as publishing
from cskt.runs import Run
from tests.tiny_runs import BACKBONE, IMAGE_SIZE, assert_same_tensors

pytestmark = pytest.mark.usefixtures("tiny_settings")
HEAVY = (
    "matplotlib",
    "pymilvus",
    "onnx",
    "ipywidgets",
    "cskt.search.gallery",
    "cskt.report.tables",
)


def test_train_then_evaluate(cskt, tiny_settings, tmp_path):
    code, out, err = cskt("train", "--config", tiny_settings, "--epochs", 2)
    assert code == 0, err
    assert "epoch 2: loss" in out
    assert "zero-shot" in out
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["config"]["epochs"] == 2
    code, out, err = cskt("evaluate", tmp_path / "run")
    assert code == 0, err
    assert json.loads(out)["metrics"] == record["metrics"]
    code, out, _ = cskt("evaluate", tmp_path / "run", "--split", "val")
    assert code == 0
    assert json.loads(out)["metrics"] == record["val_metrics"]


# Publishing


@pytest.fixture
def exported(cskt, tiny_settings, tmp_path):
    """The record of a run of one epoch in ``run``, exported to ``hub``."""
    code, _, err = cskt("train", "--config", tiny_settings, "--epochs", 1)
    assert code == 0, err
    code, _, err = cskt("export", tmp_path / "run", tmp_path / "hub")
    assert code == 0, err
    return json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_an_exported_folder_says_what_was_done(exported, tmp_path):
    """It gives the run's figures and hides this machine's folders."""
    hub = tmp_path / "hub"
    names = {"README.md", "adapter.safetensors", "config.json", "run.json"}
    assert {path.name for path in hub.iterdir()} == names
    card = ModelCard.load(hub / "README.md")
    assert card.data.library_name == "cskt"
    figures = {result.metric_name: result.metric_value for result in card.data.eval_results}
    measures = exported["metrics"]["text_to_image"]
    assert set(figures) == {"R@1", "R@5", "R@10", "mAP"}
    for name, value in figures.items():
        assert value == pytest.approx(round(measures[name], 2))
    assert exported["data_fingerprint"][:12] in card.text
    for name in ("README.md", "run.json", "config.json"):
        assert str(tmp_path) not in (hub / name).read_text()


def test_an_exported_folder_is_evaluated_on_named_data(cskt, exported, tmp_path):
    code, _, err = cskt("evaluate", tmp_path / "hub")
    assert code == 2
    assert "knows no data; name them with --dataset" in err
    data = ("--dataset", "CUHK-PEDES", "--data-root", exported["config"]["data_root"])
    code, _, err = cskt("evaluate", tmp_path / "hub", *data)
    assert code == 2
    assert "another backbone" in err  # random weights are made anew: the fingerprint notices


def test_an_export_in_bf16_takes_half_the_room(cskt, exported, tmp_path):
    code, _, err = cskt("export", tmp_path / "run", tmp_path / "half", "--bf16")
    assert code == 0, err
    whole = (tmp_path / "hub" / "adapter.safetensors").stat().st_size
    half = (tmp_path / "half" / "adapter.safetensors").stat().st_size
    assert half < 0.6 * whole


def test_what_is_published_does_not_say_where_the_weights_lay(cskt, tiny_settings, tmp_path):
    weights = tmp_path / "secret" / "weights.pt"
    weights.parent.mkdir()
    torch.manual_seed(3)
    torch.save(create_backbone(BACKBONE, image_size=IMAGE_SIZE).state_dict(), weights)
    code, _, err = cskt("train", "--config", tiny_settings, "--epochs", 1, "--pretrained", weights)
    assert code == 0, err
    record = Run.load(tmp_path / "run").record
    assert record["config"]["pretrained"] == str(weights)
    public = publishing.public_record(record)
    assert public["config"]["pretrained"] == "weights.pt"
    assert str(tmp_path) not in json.dumps(public)
    assert public["weights_fingerprint"] == record["weights_fingerprint"]
    assert publishing.public_record(public) == public
    code, _, err = cskt("export", tmp_path / "run", tmp_path / "hub")
    assert code == 0, err
    for name in ("README.md", "run.json", "config.json"):
        assert str(tmp_path) not in (tmp_path / "hub" / name).read_text()
    data = ("--dataset", "CUHK-PEDES", "--data-root", record["config"]["data_root"])
    code, _, err = cskt("evaluate", tmp_path / "hub", *data)
    assert code == 2
    assert "needs the backbone weights 'weights.pt', which are not there" in err
    code, out, err = cskt("evaluate", tmp_path / "hub", *data, "--pretrained", weights)
    assert code == 0, err
    assert json.loads(out)["metrics"] == record["metrics"]


# Checkpoints of the authors

SIZE = ("--height", 32, "--width", 16, "--backbone", MINI)


@pytest.fixture
def theirs(cskt, tiny_settings, tmp_path):
    """The model of a run over cskt-mini, as a checkpoint for the authors' code."""
    code, _, err = cskt(
        "train",
        *("--config", tiny_settings),
        *("--epochs", 1),
        *("--backbone", MINI),
        *("--method", "cskt"),
        "--set=image_size=(32, 16)",
        "--set=pretrained=None",
        "--set=cskt={'prompt_length': 3}",
    )
    assert code == 0, err
    path = tmp_path / "theirs" / "best.pth"
    code, _, err = cskt("export", tmp_path / "run", path, "--reference")
    assert code == 0, err
    return path


def test_checkpoints_of_the_authors_go_both_ways(cskt, theirs, tmp_path):
    code, _, err = cskt("import-checkpoint", theirs, tmp_path / "ours", *SIZE)
    assert code == 0, err
    trained = Run.load(tmp_path / "run").load_model()
    imported = CSKT.from_pretrained(tmp_path / "ours")
    assert imported.config.prompt_length == 3
    assert imported.config.reduction == trained.config.reduction
    assert_same_tensors(trained.trainable_state(), imported.trainable_state())


def test_what_half_precision_rounds_off_makes_no_other_backbone(cskt, theirs, tmp_path):
    state = {name: tensor.half() for name, tensor in torch.load(theirs).items()}
    torch.save({"model": state}, tmp_path / "half.pth")
    code, _, err = cskt("import-checkpoint", tmp_path / "half.pth", tmp_path / "halved", *SIZE)
    assert code == 0, err
    trained = Run.load(tmp_path / "run").load_model().trainable_state()
    rounded = {name: tensor.half().float() for name, tensor in trained.items()}
    assert_same_tensors(CSKT.from_pretrained(tmp_path / "halved").trainable_state(), rounded)


def test_a_checkpoint_over_another_backbone_is_refused(cskt, theirs, tmp_path):
    state = torch.load(theirs)
    state["base_model.ln_final.weight"] = 1.1 * state["base_model.ln_final.weight"]
    torch.save(state, tmp_path / "foreign.pth")
    code, _, err = cskt("import-checkpoint", tmp_path / "foreign.pth", tmp_path / "no", *SIZE)
    assert code == 2
    assert "1 tensors differ, such as base_model.ln_final.weight" in err
    assert not (tmp_path / "no").exists()


def test_a_checkpoint_of_another_model_is_refused(cskt, tmp_path):
    torch.save({"model": {"conv.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    code, _, err = cskt("import-checkpoint", tmp_path / "other.pth", tmp_path / "no", *SIZE)
    assert code == 2
    assert "no prompts and adapters in the authors' names" in err
    assert not (tmp_path / "no").exists()


# Bad input

FILES = {
    "broken.yaml": "a: [",
    "list.yaml": "- 1",
    "surplus.yaml": "epohcs: 3",
    "method.yaml": "cskt: 3",
}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --dataset CUHK", "CUHK is none of CUHK-PEDES, ICFG-PEDES"),
        ("train --dataset CUHK-PEDES --data-root nowhere", "nowhere"),
        ("train --dataset CUHK-PEDES --backbone ViT-Z --data-root CUHK-PEDES", "ViT-Z"),
        ("train --method magic", "method 'magic' is unknown"),
        ("train --epochs 0", "epochs must be"),
        ("train --seed -1", "seed must be"),
        ("train --config absent.yaml", "absent.yaml cannot be read"),
        ("train --config broken.yaml", "broken.yaml is not valid yaml"),
        ("train --config list.yaml", "list.yaml must hold"),
        ("train --config surplus.yaml", "has no field epohcs"),
        ("train --config method.yaml", "cskt must be a mapping"),
        ("train --set epohcs=3", "has no field epohcs"),
        ("train --set batch_size", "--set batch_size must be"),
        ("train --set batch_size=many", "batch_size must be"),
        ("reproduce --methods cskt,magic", "method 'magic' is unknown"),
        ("reproduce --records tiny.yaml", "tiny.yaml cannot be written"),
        ("evaluate nowhere", "nowhere holds no run"),
        ("evaluate nowhere --split dev", "--split must be"),
        ("render CUHK-PEDES", "CUHK-PEDES cannot be rendered"),
        ("pretrain-mini --samples 1", "samples"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cskt, tiny_data, tmp_path, command, message):
    (tmp_path / "CUHK-PEDES").symlink_to(tiny_data)
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    code, out, err = cskt(*command.split())
    assert code == 2
    assert out == ""
    assert err.startswith("cskt: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("runs/[!.]*"))


def test_wrong_usage_is_exit_code_2(cskt):
    code, _, err = cskt("train", "--epochs", "many")
    assert code == 2
    assert "Traceback" not in err


def test_ctrl_c_ends_without_a_traceback(cskt, tiny_settings, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_run", interrupted)
    code, _, err = cskt("train", "--config", tiny_settings)
    assert code != 0
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_command_line_imports_nothing_that_only_one_command_needs():
    script = f"import sys, cskt.cli.main; print([n for n in {HEAVY!r} if n in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_render_prints_the_folders(cskt, tmp_path, monkeypatch):
    rendered = []

    def render(name, root):
        rendered.append((name, root))
        return tmp_path / name

    monkeypatch.setattr(synthetic, "synthetic_dataset", render)
    code, out, _ = cskt("render", "SynthPEDES-B")
    assert code == 0
    assert out == f"{tmp_path / 'SynthPEDES-B'}\n"
    assert rendered == [("SynthPEDES-B", None)]
    rendered.clear()
    cskt("render")
    assert [name for name, _ in rendered] == ["SynthPEDES-A", "SynthPEDES-B", "SynthPEDES-C"]
