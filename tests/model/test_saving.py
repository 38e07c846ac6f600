"""Weights go to disk and to the authors' names, and back; what does not fit is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cskt.config import CSKTConfig
from cskt.errors import CSKTError
from cskt.files import public_name
from cskt.model import CSKT
from cskt.model import backbone as backbones

pytestmark = pytest.mark.numerics
CONFIG = CSKTConfig(prompt_length=2, prompt_depth=1)


def features(model):
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return torch.cat(model(images, model.tokenize(["a man in red", "a tall woman"])))


def test_round_trip(small_clip, tmp_path):
    model = CSKT(small_clip(), CONFIG)
    model.save_pretrained(tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "adapter.safetensors",
        "config.json",
    ]
    assert set(load_file(tmp_path / "model" / "adapter.safetensors")) == set(
        model.trainable_state()
    )
    again = CSKT.from_pretrained(tmp_path / "model", backbone=small_clip())
    assert again.config == CONFIG and torch.equal(features(model), features(again))
    model.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    half = CSKT.from_pretrained(tmp_path / "half", backbone=small_clip())
    torch.testing.assert_close(features(half), features(model), rtol=0.05, atol=0.05)


def test_full_fine_tuning_round_trip(small_clip, tmp_path):
    model = CSKT(small_clip(), CSKTConfig().for_method("full"))
    model.save_pretrained(tmp_path)
    again = CSKT.from_pretrained(tmp_path, backbone=small_clip(seed=1))
    assert torch.equal(features(model), features(again))


def test_another_backbone_is_refused(small_clip, tmp_path):
    CSKT(small_clip(), CONFIG).save_pretrained(tmp_path)
    for other in (small_clip(seed=1), small_clip(image_size=(32, 64))):
        with pytest.raises(CSKTError, match="trained over another backbone"):
            CSKT.from_pretrained(tmp_path, backbone=other)
    with pytest.raises(CSKTError, match="unknown origin; pass it as backbone"):
        CSKT.from_pretrained(tmp_path)


@pytest.fixture
def over_a_file(small_clip, tmp_path, monkeypatch):
    """A model over weights that lie in a private folder, and that file."""
    private = tmp_path / "private" / "weights.safetensors"
    private.parent.mkdir()
    backbone = small_clip()
    save_file(
        {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, private
    )
    monkeypatch.setattr(
        backbones,
        "create_backbone",
        lambda name, pretrained, size: (
            CSKT(small_clip(), CONFIG).backbone
            if Path(pretrained).is_file()
            else pytest.fail(f"{pretrained} is no file")
        ),
    )
    return CSKT(backbone, CONFIG, source={"name": "ViT-B-32", "pretrained": str(private)}), private


def test_a_saved_model_names_no_folder_and_finds_its_weights_again(
    over_a_file, tmp_path, monkeypatch
):
    model, private = over_a_file
    model.save_pretrained(tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text()
    assert (
        str(tmp_path) not in text
        and json.loads(text)["backbone"]["pretrained"] == "weights.safetensors"
    )
    with pytest.raises(
        CSKTError,
        match="needs the backbone weights 'weights.safetensors', which are not there; give",
    ):
        CSKT.from_pretrained(tmp_path / "model")
    expected = features(model)
    assert torch.equal(
        features(CSKT.from_pretrained(tmp_path / "model", pretrained=str(private))), expected
    )
    monkeypatch.chdir(private.parent)
    assert torch.equal(features(CSKT.from_pretrained(tmp_path / "model")), expected)
    monkeypatch.chdir(tmp_path)
    private.rename(tmp_path / "model" / "weights.safetensors")
    assert torch.equal(features(CSKT.from_pretrained(tmp_path / "model")), expected)


@pytest.mark.parametrize(
    ("pretrained", "shown"),
    [
        (None, None),
        ("openai", "openai"),
        ("laion2b_s34b_b88k", "laion2b_s34b_b88k"),
        ("~/x.pt", "x.pt"),
        ("/data/me/x.pt", "x.pt"),
        ("../x.pt", "x.pt"),
        ("C:\\Users\\me\\x.pt", "x.pt"),
        (Path("/a/b.bin"), "b.bin"),
    ],
)
def test_of_a_path_the_name_is_public_and_a_tag_is_all_of_it(pretrained, shown):
    assert public_name(pretrained) == shown


def test_damaged_or_missing_files_are_named(small_clip, tmp_path):
    with pytest.raises(CSKTError, match="adapter.safetensors does not exist"):
        CSKT.from_pretrained(tmp_path)
    CSKT(small_clip(), CONFIG).save_pretrained(tmp_path)
    (tmp_path / "adapter.safetensors").write_bytes(b"half a file")
    with pytest.raises(CSKTError, match="adapter.safetensors is damaged"):
        CSKT.from_pretrained(tmp_path, backbone=small_clip())
    CSKT(small_clip(), CONFIG).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({"cskt": {"prompt_lengths": 4}, "backbone": {}})
    )
    with pytest.raises(CSKTError, match="cannot be read.*prompt_lengths"):
        CSKT.from_pretrained(tmp_path, backbone=small_clip())
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CSKTError, match="cannot be read"):
        CSKT.from_pretrained(tmp_path, backbone=small_clip())


def test_trainable_state_round_trip(small_clip):
    model, other = CSKT(small_clip(), CONFIG), CSKT(small_clip(), CONFIG)
    other.load_trainable_state({name: t.clone() for name, t in model.trainable_state().items()})
    assert torch.equal(features(model), features(other))
    state = model.trainable_state()
    state["odd"] = state.pop("prompts.text.0")
    with pytest.raises(CSKTError, match=r"missing: prompts\.text\.0; surplus: odd"):
        model.load_trainable_state(state)


def test_reference_names_are_the_authors(golden):
    state = golden.model().to_reference_state()
    frozen = {f"base_model.{name}" for name in golden.clip_state_dict_shapes}
    assert set(state) == frozen | set(golden.trainable_shapes)
    assert {
        name: list(state[name].shape) for name in golden.trainable_shapes
    } == golden.trainable_shapes


def wrapped(state, kind):
    """A state dict as training scripts save it."""
    if kind == "model":
        return {"model": state, "epoch": 3}
    if kind == "state_dict":
        return {"state_dict": state}
    if kind == "parallel":
        return {"model": {f"module.{name}": tensor for name, tensor in state.items()}}
    return state


@pytest.mark.parametrize("kind", ["bare", "model", "state_dict", "parallel"])
def test_reference_checkpoint_round_trip(small_clip, tmp_path, kind):
    model = CSKT(small_clip(), CONFIG)
    state = model.to_reference_state()
    torch.save(wrapped(state, kind), tmp_path / "best.pth")
    other = CSKT(small_clip(seed=1), CONFIG)
    other.load_reference_checkpoint(tmp_path / "best.pth")
    assert torch.equal(features(model), features(other))
    half = {name: tensor.half() for name, tensor in state.items()}
    again = CSKT(small_clip(), CONFIG)
    again.load_reference_checkpoint(wrapped(half, kind))
    torch.testing.assert_close(features(again), features(model), rtol=0.02, atol=0.02)


def test_reference_checkpoint_that_does_not_fit(small_clip, tmp_path):
    model = CSKT(small_clip(), CONFIG)
    before = features(model)
    state = {name: torch.zeros_like(tensor) for name, tensor in model.to_reference_state().items()}
    state["prompt_learner.tmap.weight"] = torch.zeros(3, 16)
    state["classifier.weight"] = state.pop("prompt_learner.ctx")
    del state["base_model.visual.conv1.weight"]
    with pytest.raises(CSKTError) as caught:
        model.load_reference_checkpoint(state)
    text = str(caught.value)
    assert (
        "base_model.visual.conv1.weight" in text.split("surplus")[0]
        and "prompt_learner.ctx" in text
    )
    assert "surplus: classifier.weight" in text
    assert "prompt_learner.tmap.weight (expected (32, 16), got (3, 16))" in text
    assert torch.equal(features(model), before)
    for content, message in (
        ({"model": 3}, "does not fit"),
        ({}, "no state dict"),
        ([1], "no state dict"),
    ):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(CSKTError, match=message):
            model.load_reference_checkpoint(tmp_path / "x.pth")
    with pytest.raises(CSKTError, match="nowhere.pth does not exist"):
        model.load_reference_checkpoint(tmp_path / "nowhere.pth")


class Unsafe:
    pass


def test_reference_checkpoint_runs_no_code(small_clip, tmp_path):
    torch.save({"model": Unsafe()}, tmp_path / "unsafe.pth")
    with pytest.raises(CSKTError, match="unsafe.pth cannot be read as tensors"):
        CSKT(small_clip(), CONFIG).load_reference_checkpoint(tmp_path / "unsafe.pth")
