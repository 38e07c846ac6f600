"""The text encoder as an ONNX file against torch."""

from __future__ import annotations

import types

import onnx
import pytest
import torch

from cskt import load_model, runs
from cskt.config import CSKTConfig
from cskt.errors import CSKTError
from cskt.search.onnx_export import encode_with_onnx, export_text_encoder
from tests.tiny_runs import BACKBONE, IMAGE_SIZE, register_backbone

pytestmark = [pytest.mark.numerics, pytest.mark.slow]
SENTENCE = "a woman in a red coat with a black backpack and white shoes is walking to the left "
# Of 2, 3, 4, 20, ... tokens.
CAPTIONS = ["", "red", "a woman", SENTENCE, 2 * SENTENCE, 4 * SENTENCE, 9 * SENTENCE]


def stirred(model):
    """The model with trained weights far from their start, so that each of them matters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.trainable_state().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """``tiny(**config)`` -> a model of two blocks."""
    register_backbone(tmp_path_factory.mktemp("backbone"))
    torch.manual_seed(0)

    def make(**config):
        model = load_model(BACKBONE, image_size=IMAGE_SIZE, config=CSKTConfig(**config))
        return stirred(model)

    return make


@pytest.fixture(scope="module")
def embedded():
    return stirred(load_model("cskt-mini"))


@pytest.fixture(scope="module")
def exported(embedded, tmp_path_factory):
    """The file of the embedded backbone, exported from a model that was in training."""
    path = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
    export_text_encoder(embedded.train(), path)
    assert embedded.training
    assert embedded.fused_dtype is None
    embedded.eval()
    return path


def by_torch(model, captions):
    return model.encode_text(model.tokenize(captions), normalize=True).detach()


def assert_close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "config",
    [
        dict(prompt_length=4, lora=True, text_scale=1.0),
        dict(prompt_length=3, prompt_depth=1, vision_to_text=False),
        dict(prompt_depth=0, text_adapter=False),
    ],
    ids=["everything", "prompts of one layer", "none"],
)
def test_the_file_gives_the_features_of_torch(tiny, config, tmp_path):
    model = tiny(**config)
    path = export_text_encoder(model, tmp_path / "new" / "encoder.onnx")
    expected = by_torch(model, CAPTIONS)
    found = encode_with_onnx(path, model, CAPTIONS)
    assert found.shape == (7, 16)
    assert found.dtype == torch.float32
    assert_close(found, expected)
    difference = (expected[0] - expected[1]).abs().max()
    assert difference > 1e-2, "captions differ, or nothing was compared"


def test_the_embedded_backbone_s_file_gives_its_features(embedded, exported):
    assert not any(embedded.unknown_words(caption) for caption in CAPTIONS)
    found = encode_with_onnx(exported, embedded, CAPTIONS)
    assert_close(found, by_torch(embedded, CAPTIONS), tolerance=1e-4)


def test_unknown_words_tell_the_file_and_python_the_same_nothing(embedded, exported):
    strange = ["a giraffe coat", "a splendid coat"]
    assert embedded.unknown_words("giraffe splendid") == ["giraffe", "splendid"]
    found = encode_with_onnx(exported, embedded, strange)
    assert_close(found, by_torch(embedded, strange), tolerance=1e-4)
    assert torch.equal(found[0], found[1])


def test_the_file_is_small_names_no_machine_and_says_its_input(exported):
    content = exported.read_bytes()
    assert len(content) < 6e6, "the table of all tokens alone takes 25 MB"
    assert b".py" not in content, "no file of this machine is named"
    description = onnx.load(exported).doc_string
    assert "at most 69 of them" in description
    assert "end token 49407" in description


def test_equal_models_give_equal_files(embedded, exported, tmp_path):
    again = export_text_encoder(embedded, tmp_path / "again.onnx")
    assert again.read_bytes() == exported.read_bytes()


def test_another_type_is_refused(tiny, tmp_path):
    message = r"float32 from the CPU, but this one is torch.bfloat16 on cpu; use model"
    with pytest.raises(CSKTError, match=message):
        export_text_encoder(tiny().fuse(torch.bfloat16), tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def finished_run(tiny, monkeypatch):
    """A model that the command line finds in every run."""
    model = tiny()
    run = types.SimpleNamespace(load_model=lambda: model, metrics={"config": {}, "versions": {}})
    monkeypatch.setattr(runs.Run, "load", lambda folder: run)
    monkeypatch.setattr("cskt.report.card.public_record", lambda record: record)
    return model


def test_export_from_the_command_line(cskt, finished_run, tmp_path):
    path = tmp_path / "deep" / "text.onnx"
    code, out, err = cskt("export", "run", path, "--onnx")
    assert code == 0, err
    assert out.strip() == str(path)
    assert_close(encode_with_onnx(path, finished_run, CAPTIONS), by_torch(finished_run, CAPTIONS))


def test_onnx_and_other_forms_exclude_each_other(cskt, finished_run, tmp_path):
    code, _, err = cskt("export", "run", tmp_path / "no", "--onnx", "--bf16")
    assert code == 2
    assert "--bf16, --reference and --onnx exclude each other" in err
    assert not (tmp_path / "no").exists()
