"""CLIPs out of checkpoints of the IRRA family, of random weights in its layout."""

import logging

import open_clip
import pytest
import torch

from cskt.config import CSKTConfig, TrainConfig
from cskt.errors import ModelError
from cskt.model import load_model
from cskt.model.backbone import create_backbone, resize_positions
from cskt.runs import backbone_origin, weights_fingerprint
from cskt.training import train
from tests.tiny_runs import BACKBONE, register_backbone, tiny_config

TALL = (48, 16)  # three times as high as wide, as the family's 384 x 128: 6 x 2 patches of 8
HEADS = {
    "classifier.weight": torch.zeros(3, 16),
    "classifier.bias": torch.zeros(3),
    "cross_attn.in_proj_weight": torch.zeros(48, 16),
    "mlm_head.fc.weight": torch.zeros(5, 16),
}


@pytest.fixture
def clip(tmp_path):
    """A CLIP with random weights for tall images."""
    register_backbone(tmp_path)
    torch.manual_seed(3)
    return create_backbone(BACKBONE, "random", TALL)


def write_irra(path, clip, heads=HEADS, wrapper=""):
    """What IRRA's Checkpointer writes: the model in half precision, and where training stood."""
    state = {}
    for name, tensor in without_temperature(clip).items():  # IRRA's is fixed
        state[f"{wrapper}base_model.{name}"] = tensor.half()
    for name, tensor in heads.items():
        state[f"{wrapper}{name}"] = tensor
    content = {"model": state, "optimizer": {"state": {}}, "epoch": 7}
    torch.save(content, path)
    return path


def without_temperature(clip):
    return {name: value for name, value in clip.state_dict().items() if name != "logit_scale"}


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_every_tensor_of_the_clip_is_loaded(clip, tmp_path, wrapper):
    path = write_irra(tmp_path / "best.pth", clip, wrapper=wrapper)
    model = load_model(BACKBONE, pretrained=path, image_size=TALL, config=CSKTConfig())
    loaded = without_temperature(model.backbone)
    saved = without_temperature(clip)
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        expected = tensor.half().float()
        assert torch.equal(loaded[name], expected), name


def test_the_layout_is_that_of_clip_at_the_real_size(monkeypatch, tmp_path):
    """IRRA's positions at 384 x 128 are 24 x 8 patches and the class token; nothing is resized."""
    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    config["vision_cfg"].update(layers=1, width=64, image_size=(384, 128))
    config["text_cfg"].update(layers=1, width=32, heads=2)
    config["embed_dim"] = 16
    clip = open_clip.CLIP(**config)
    assert clip.visual.positional_embedding.shape == (24 * 8 + 1, 64)
    path = write_irra(tmp_path / "best.pth", clip)
    config["vision_cfg"].update(image_size=224)
    monkeypatch.setattr("cskt.model.backbone.model_config", lambda name: config)
    loaded = create_backbone("ViT-B-16-quickgelu", path, (384, 128))
    expected = clip.visual.positional_embedding.half().float()
    assert torch.equal(loaded.visual.positional_embedding, expected)


def test_positions_of_tall_images_are_resized_to_other_images(clip, tmp_path):
    path = write_irra(tmp_path / "best.pth", clip)
    loaded = create_backbone(BACKBONE, path, (32, 16))
    positions = clip.visual.positional_embedding.half()
    expected = resize_positions(positions, (6, 2), (4, 2))
    assert torch.equal(loaded.visual.positional_embedding, expected)


def test_the_heads_that_are_left_out_are_said_once(clip, tmp_path, caplog):
    path = write_irra(tmp_path / "best.pth", clip)
    with caplog.at_level(logging.INFO):
        create_backbone(BACKBONE, path, TALL)
        create_backbone(BACKBONE, path, TALL)
    [message] = caplog.messages
    assert message.endswith("CLIP of the IRRA family, left out: classifier, cross_attn, mlm_head")


def test_a_part_that_the_family_does_not_have_is_refused(clip, tmp_path):
    path = write_irra(tmp_path / "best.pth", clip, {"prompt_learner.ctx": torch.zeros(4, 32)})
    message = r"best.pth.* holds a CLIP under base_model and prompt_learner, which .*; save the"
    with pytest.raises(ModelError, match=message):
        create_backbone(BACKBONE, path, TALL)


def test_a_clip_of_another_size_is_refused(clip, tmp_path):
    path = write_irra(tmp_path / "best.pth", clip)
    with pytest.raises(ModelError, match=r"best.pth.* does not fit the model \(missing: .*; use a"):
        create_backbone("ViT-B-32", path)


def test_only_tensors_are_unpickled(tmp_path, clip):
    path = tmp_path / "best.pth"
    torch.save({"model": {"base_model.visual.proj": torch.nn.Linear(2, 2)}}, path)
    with pytest.raises(ModelError, match="best.pth cannot be read as tensors"):
        create_backbone(BACKBONE, path, TALL)


# What a run says of it


def test_a_run_says_that_its_backbone_was_trained_on_people(clip, tiny_data, tmp_path, own_cache):
    path = write_irra(tmp_path / "best.pth", clip)
    config = tiny_config(
        tiny_data, tmp_path / "run", pretrained=str(path), image_size=TALL, method="zero-shot"
    )
    assert train(config).record["backbone_origin"] == (
        f"checkpoint best.pth, sha256 {weights_fingerprint(config)}, IRRA family, "
        "without classifier and cross_attn and mlm_head"
    )


def test_other_origins_are_named(clip, tmp_path):
    path = tmp_path / "clip.pt"
    torch.save(clip.state_dict(), path)
    file = TrainConfig(backbone=BACKBONE, pretrained=str(path))
    assert backbone_origin(file) == f"checkpoint clip.pt, sha256 {weights_fingerprint(file)}"
    assert backbone_origin(TrainConfig()) == "tag openai"
    assert backbone_origin(TrainConfig(pretrained=None)) == "random"
    assert backbone_origin(TrainConfig.mini()) == "cskt-mini"
