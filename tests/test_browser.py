"""The text encoder as ONNX against torch, and what is written for the page that searches."""

import base64
import gzip
import json
import re
import types

import numpy as np
import onnx
import pytest
import torch

from cskt import browser, evaluation, load_model, runs
from cskt.config import CSKTConfig
from cskt.data.datasets import load_dataset
from cskt.errors import CSKTError
from tests.tiny_runs import BACKBONE, IMAGE_SIZE, register_backbone, write_dataset

pytestmark = pytest.mark.numerics
SENTENCE = "a woman in a red coat with a black backpack and white shoes is walking to the left "
CAPTIONS = [
    "",
    "red",
    "a woman",
    SENTENCE,
    2 * SENTENCE,
    4 * SENTENCE,
    9 * SENTENCE,
]  # of 2, 3, 4, 20, ... tokens


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
    return lambda **config: stirred(
        load_model(BACKBONE, image_size=IMAGE_SIZE, config=CSKTConfig(**config))
    )


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
    path = browser.export_text_encoder(model, tmp_path / "new" / "encoder.onnx")
    expected = model.encode_text(model.tokenize(CAPTIONS), normalize=True).detach()
    found = browser.encode_with_onnx(path, model, CAPTIONS)
    assert found.shape == expected.shape == (7, 16) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-2, (
        "captions differ, or nothing was compared"
    )


def test_the_embedded_backbone_carries_only_what_it_knows(tmp_path):
    model = stirred(load_model("cskt-mini")).train()
    path = browser.export_text_encoder(model, tmp_path / "encoder.onnx")
    assert model.training and model._fused is None
    assert not any(map(model.unknown_words, CAPTIONS))
    expected = model.eval().encode_text(model.tokenize(CAPTIONS), normalize=True).detach()
    torch.testing.assert_close(
        browser.encode_with_onnx(path, model, CAPTIONS), expected, rtol=0, atol=1e-4
    )
    strange = ["a giraffe coat", "a splendid coat"]
    one, other = found = browser.encode_with_onnx(path, model, strange)
    expected = model.encode_text(model.tokenize(strange), normalize=True).detach()
    torch.testing.assert_close(
        found, expected, rtol=0, atol=1e-4
    )  # the page and Python agree on every sentence
    assert torch.equal(one, other) and model.unknown_words("giraffe splendid") == [
        "giraffe",
        "splendid",
    ]
    content = path.read_bytes()
    assert len(content) < 6e6, "the table of all tokens alone takes 25 MB"
    assert b".py" not in content, "no file of this machine is named"
    held = onnx.load(path)
    assert "at most 69 of them" in held.doc_string and "end token 49407" in held.doc_string
    assert browser.export_text_encoder(model, tmp_path / "again.onnx").read_bytes() == content


def test_another_type_is_refused(tiny, tmp_path):
    with pytest.raises(
        CSKTError, match=r"float32 from the CPU, but this one is torch.bfloat16 on cpu; use model"
    ):
        browser.export_text_encoder(tiny().fuse(torch.bfloat16), tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())


def test_export_from_the_command_line(cskt, tiny, tmp_path, monkeypatch):
    model = tiny()
    monkeypatch.setattr(
        runs.Run,
        "load",
        lambda folder: types.SimpleNamespace(
            load_model=lambda: model, record={"config": {}, "versions": {}}
        ),
    )
    monkeypatch.setattr("cskt.publishing.public_record", lambda record: record)
    code, out, err = cskt("export", "run", tmp_path / "deep" / "text.onnx", "--onnx")
    assert code == 0 and out.strip() == str(tmp_path / "deep" / "text.onnx"), err
    expected = model.encode_text(model.tokenize(CAPTIONS), normalize=True).detach()
    found = browser.encode_with_onnx(tmp_path / "deep" / "text.onnx", model, CAPTIONS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    code, _, err = cskt("export", "run", tmp_path / "no", "--onnx", "--bf16")
    assert (
        code == 2
        and "--bf16, --reference and --onnx exclude each other" in err
        and not (tmp_path / "no").exists()
    )


@pytest.fixture
def split(tiny, tmp_path, monkeypatch):
    """A model, its loaded test split and random features of it."""
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    data, model = load_dataset("CUHK-PEDES", write_dataset(tmp_path / "data")), tiny()
    loaded = evaluation.load_split(model, data.test)
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(count, 16)) for count in (12, 12))
    (tmp_path / "encoder.onnx").write_bytes(b"an encoder")
    return model, loaded, images, texts


def unpacked(path):
    """The name and content of a data file."""
    name, content = re.fullmatch(
        r'\(globalThis.csktFiles \?\?= \{\}\)\["(.+)"\] = (.+);\n', path.read_text()
    ).groups()
    content = json.loads(content)
    return name, gzip.decompress(base64.b64decode(content)) if isinstance(content, str) else content


def test_the_page_s_files_hold_what_python_found(split, tmp_path):
    model, loaded, images, texts = split
    write = dict(
        encoder=tmp_path / "encoder.onnx",
        model=model,
        loaded=loaded,
        image_features=images,
        text_features=texts,
        examples=[3, 0],
        title="Drawn <b>people</b>",
    )
    page = browser.write_page(tmp_path / "search", **write)
    held = dict(unpacked(path) for path in (tmp_path / "search").glob("*.data.js"))
    assert (
        set(held) == {"gallery", "queries", "tokenizer", "features", "encoder"}
        and held["encoder"] == b"an encoder"
    )
    assert np.array_equal(
        np.frombuffer(held["features"], np.float32).reshape(12, 16), images.numpy()
    )
    expected = (texts @ images.T).sort(dim=1, descending=True)
    assert held["queries"]["order"] == expected.indices[:, :10].tolist()
    assert np.allclose(held["queries"]["scores"], expected.values[:, :10], atol=1e-5)
    assert held["queries"]["captions"] == list(loaded.split.captions)
    assert held["gallery"]["identities"] == loaded.split.image_identities.tolist()
    assert held["gallery"]["cameras"] == 12 * [""] and len(held["gallery"]["thumbnails"]) == 12
    assert "Drawn &lt;b&gt;people" in page and page.count("<figure") == 10
    for name in re.findall(r'(?:src|href)="\.\./_static/search/([^"]+)"', page):
        assert (tmp_path / "search" / name).is_file()
    before = {path: path.read_bytes() for path in (tmp_path / "search").iterdir()}
    assert browser.write_page(tmp_path / "search", **write) == page
    assert {path: path.read_bytes() for path in (tmp_path / "search").iterdir()} == before


def test_a_page_too_large_or_of_other_features_is_not_written(split, tmp_path, monkeypatch):
    model, loaded, images, texts = split
    with pytest.raises(
        CSKTError, match=r"features of 12 images and 12 captions, got 1, 11 and 12\."
    ):
        browser.write_page(
            tmp_path / "search",
            tmp_path / "encoder.onnx",
            model,
            loaded,
            images[1:],
            texts,
            [0],
            "",
        )
    monkeypatch.setattr(browser, "LIMIT", 1e5)
    with pytest.raises(
        CSKTError, match=r"the page would load [\d.]+ MB, more than 0; use a smaller backbone"
    ):
        browser.write_page(
            tmp_path / "search", tmp_path / "encoder.onnx", model, loaded, images, texts, [0], ""
        )
    assert not (tmp_path / "search").exists()


def test_photographs_other_tokenizers_and_large_encoders_are_no_page(tiny, monkeypatch):
    model, drawn = tiny(), types.SimpleNamespace(name="SynthPEDES-A", synthetic=True)
    photographs = types.SimpleNamespace(name="RSTPReid", synthetic=False)
    assert browser.obstacle(model, drawn) is None
    assert browser.obstacle(model, photographs).startswith(
        "RSTPReid shows photographs of people, which may not be"
    )
    monkeypatch.setattr(browser, "LIMIT", 1e4)
    assert "more than the 0 MB that a page may load" in browser.obstacle(model, drawn)
    model.tokenizer = lambda texts: None
    assert browser.obstacle(model, drawn).startswith("This backbone's tokenizer is not CLIP's")
