"""Backbones from open_clip, from files of several formats, and the embedded one (here a tiny
stand-in)."""

import json
import urllib.error

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from cskt.config import CSKTConfig
from cskt.errors import CSKTError
from cskt.model import CSKT, load_model
from cskt.model import backbone as backbones

CONFIG = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
KNOWN = {320, 786, 1449, 49406, 49407}


@pytest.fixture
def mini(monkeypatch, tmp_path):
    """A folder with the assets of a tiny cskt-mini; the backbone they were saved from."""
    torch.manual_seed(0)
    backbone = open_clip.CLIP(**CONFIG)
    (tmp_path / "cskt-mini.json").write_text(json.dumps(CONFIG))
    backbones.save_mini(backbone, KNOWN, tmp_path / "cskt-mini.safetensors")
    monkeypatch.setattr(backbones, "ASSETS", tmp_path)
    return backbone


def test_embedded_weights(mini, tmp_path):
    loaded = backbones.create_backbone("cskt-mini")
    ids = torch.tensor(sorted(KNOWN))
    for name, tensor in loaded.state_dict().items():
        expected = mini.state_dict()[name].half().float()
        if name == "token_embedding.weight":
            tensor, expected = tensor[ids], expected[ids]
        torch.testing.assert_close(tensor, expected)
    filled = loaded.token_embedding.weight.any(dim=1).nonzero()[:, 0]
    assert set(filled.tolist()) == KNOWN  # nothing is drawn for the other rows
    assert backbones.known_token_ids("cskt-mini") == KNOWN
    assert backbones.known_token_ids("ViT-B-32") is None
    shipped = load_file(tmp_path / "cskt-mini.safetensors")
    assert shipped["token_embedding.rows"].shape == (len(KNOWN), 16)
    random = backbones.create_backbone("cskt-mini", "random")
    assert backbones.fingerprint(random) != backbones.fingerprint(loaded)


def test_the_fingerprint_of_the_embedded_weights_is_of_what_is_shipped(mini, tmp_path, monkeypatch):
    """It does not depend on what torch draws, nor on the size of the table, but on every shipped id
    and value."""
    first = backbones.fingerprint(backbones.create_backbone("cskt-mini"))
    with monkeypatch.context() as patch:
        patch.setattr(
            torch, "randn", lambda *shape, **_: torch.ones(*shape)
        )  # another version of torch
        assert backbones.fingerprint(backbones.create_backbone("cskt-mini")) == first
    backbones.save_mini(
        mini,
        {token + 1 for token in KNOWN if token < 40_000} | {49406, 49407},
        tmp_path / "cskt-mini.safetensors",
    )
    assert backbones.fingerprint(backbones.create_backbone("cskt-mini")) != first
    shipped = backbones.create_backbone("cskt-mini")
    before = backbones.fingerprint(shipped)
    rows = shipped.token_embedding.weight.data
    rows[[321, 787]] = rows[[787, 321]]  # the same values, other tokens
    assert backbones.fingerprint(shipped) != before


def test_the_fingerprint_does_not_depend_on_how_a_chip_rounds_resized_positions(mini, monkeypatch):
    first = backbones.fingerprint(backbones.create_backbone("cskt-mini", image_size=(64, 32)))
    interpolate = backbones.F.interpolate
    monkeypatch.setattr(
        backbones.F,
        "interpolate",
        lambda *arguments, **settings: torch.nextafter(
            interpolate(*arguments, **settings), torch.tensor(9.0)
        ),
    )  # another chip, or another version of torch
    again = backbones.create_backbone("cskt-mini", image_size=(64, 32))
    assert backbones.fingerprint(again) == first
    again.visual.positional_embedding.data[0] += 1  # the class token's is taken as it is
    assert backbones.fingerprint(again) != first


def test_embedded_model_round_trip(mini, tmp_path):
    model = load_model(image_size=(64, 32))
    assert model.config == CSKTConfig.mini() and model.image_size == (64, 32)
    assert model.unknown_words("A black coat, a man") == ["coat", ","]
    model.save_pretrained(tmp_path / "run")
    again = CSKT.from_pretrained(tmp_path / "run")
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


@pytest.mark.parametrize("missing", ["json", "safetensors"])
def test_missing_asset_is_named(mini, tmp_path, missing):
    (tmp_path / f"cskt-mini.{missing}").unlink()
    with pytest.raises(
        CSKTError, match=f"cskt-mini.{missing} of cskt-mini is missing; .*pretrain-mini"
    ):
        backbones.create_backbone("cskt-mini")


class Scripted(torch.nn.Module):
    """Stands for OpenAI's TorchScript archives: the same names, half precision, three extra
    integers."""

    def __init__(self, state):
        super().__init__()
        for name, value in {
            "input_resolution": 64,
            "context_length": 77,
            "vocab_size": 49408,
        }.items():
            self.register_buffer(name, torch.tensor(value))
        for name, tensor in state.items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            module.register_parameter(last, torch.nn.Parameter(tensor.half()))

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    "kind", ["state_dict", "safetensors", "open_clip", "parallel", "torchscript"]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_checkpoint_files(mini, tmp_path, kind):
    state = {name: tensor.half() for name, tensor in mini.state_dict().items()}
    path = tmp_path / "clip.pt"
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif kind == "torchscript":
        torch.jit.save(torch.jit.script(Scripted(state)), path)
    else:
        parallel = {f"module.{name}": tensor for name, tensor in state.items()}
        contents = {
            "state_dict": state,
            "open_clip": {"state_dict": state, "epoch": 1},
            "parallel": {"state_dict": parallel},
        }
        torch.save(contents[kind], path)
    loaded = backbones.create_backbone("cskt-mini", path)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name].float()), name
    assert not loaded.training


def test_positions_follow_the_image_size(mini, tmp_path):
    torch.save(mini.state_dict(), tmp_path / "clip.pt")
    wide = backbones.create_backbone("cskt-mini", tmp_path / "clip.pt", image_size=(96, 32))
    assert wide.visual.positional_embedding.shape == (1 + 6 * 2, 16)
    with torch.no_grad():
        assert wide.encode_image(torch.zeros(1, 3, 96, 32)).shape == (1, 8)


def test_resized_positions():
    flat = torch.full((17, 3), 2.0)
    assert torch.equal(backbones.resize_positions(flat, (4, 4), (8, 3)), torch.full((25, 3), 2.0))
    rows = torch.arange(4.0).repeat_interleave(2)[:, None]  # 4 x 2, each row constant
    ramp = torch.cat([torch.tensor([[9.0]]), rows])
    moved = backbones.resize_positions(ramp, (4, 2), (2, 4))
    assert moved[0] == 9
    assert moved[1:, 0].tolist() == [0.5] * 4 + [2.5] * 4
    assert backbones.resize_positions(ramp, (8, 8), (4, 2)) is ramp


def test_files_that_do_not_fit_are_refused(mini, tmp_path):
    state = dict(mini.state_dict())
    state["visual.proj"], state["odd"] = torch.zeros(2, 2), state.pop("ln_final.bias")
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(
        CSKTError,
        match=r"missing: ln_final.bias; surplus: odd; of the wrong shape or type: visual.proj",
    ):
        backbones.create_backbone("cskt-mini", tmp_path / "clip.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "clip.pt").read_bytes()[:1000])
    with pytest.raises(CSKTError, match="cut.pt cannot be read"):
        backbones.create_backbone("cskt-mini", tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("name", "pretrained", "size", "message"),
    [
        ("ViT-Z", None, None, "backbone 'ViT-Z' is unknown"),
        ("RN50", None, None, "not a plain ViT CLIP"),
        ("ViT-B-16-SigLIP", None, None, "not a plain ViT CLIP"),
        (
            "ViT-B-32",
            "no-such-tag",
            None,
            r"'no-such-tag' is neither a tag of ViT-B-32 \(known: openai.*looked at /",
        ),
        ("ViT-B-16", "openai", None, "use the backbone 'ViT-B-16-quickgelu'"),
        ("ViT-B-16", None, (8, 128), "at least one patch"),
        ("ViT-B-16", None, (128_000, 64_000), "at most 4096 a side"),
        ("ViT-B-16", None, (8, 128, 3), r"must be \(height, width\)"),
    ],
)
def test_bad_requests(name, pretrained, size, message):
    with pytest.raises(CSKTError, match=message):
        backbones.create_backbone(name, pretrained, size)


def test_offline_download_says_where_to_put_the_file(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(backbones.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CSKTError) as caught:
        backbones.create_backbone("ViT-B-16-quickgelu", "openai", (384, 128))
    text = str(caught.value)
    assert "tag 'openai'" in text
    assert str(tmp_path / ".cache/clip/ViT-B-16.pt") in text
    assert "ViT-B-16.pt on a" in text
    (tmp_path / ".cache/clip").mkdir(parents=True)
    (tmp_path / ".cache/clip/ViT-B-16.pt").write_bytes(b"found, but not a checkpoint")
    with pytest.raises(CSKTError, match="ViT-B-16.pt cannot be read"):
        backbones.create_backbone("ViT-B-16-quickgelu", "openai", (384, 128))


def test_tokenizer():
    ids = backbones.tokenizer_for("ViT-B-16-quickgelu")(["a man", "coat " * 100])
    assert ids.shape == (2, 77)
    assert ids[0, :4].tolist() == [49406, 320, 786, 49407]
    assert ids[1, -1] == 49407


def test_an_unknown_backbone_is_said_before_its_weights():
    with pytest.raises(CSKTError, match="backbone 'ViT-X' is unknown"):
        backbones.weights_source("ViT-X", "openai")
