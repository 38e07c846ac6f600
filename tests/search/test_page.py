"""What is written for the page that searches, and when none is written."""

from __future__ import annotations

import base64
import gzip
import json
import re
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cskt import evaluation, load_model
from cskt.config import CSKTConfig
from cskt.data.datasets import load_dataset
from cskt.errors import CSKTError
from cskt.search import page
from tests.tiny_runs import BACKBONE, IMAGE_SIZE, register_backbone, write_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    register_backbone(tmp_path_factory.mktemp("backbone"))
    torch.manual_seed(0)
    return load_model(BACKBONE, image_size=IMAGE_SIZE, config=CSKTConfig()).eval()


@pytest.fixture
def search(model, tmp_path, monkeypatch):
    """Arguments of :func:`page.write_page`: a test split and random features of it."""
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    data = load_dataset("CUHK-PEDES", write_dataset(tmp_path / "data"))
    torch.manual_seed(0)
    image_features = F.normalize(torch.randn(12, 16))
    text_features = F.normalize(torch.randn(12, 16))
    (tmp_path / "encoder.onnx").write_bytes(b"an encoder")
    return {
        "folder": tmp_path / "search",
        "encoder": tmp_path / "encoder.onnx",
        "model": model,
        "loaded": evaluation.load_split(model, data.test),
        "image_features": image_features,
        "text_features": text_features,
        "examples": [3, 0],
        "title": "Drawn <b>people</b>",
    }


def unpacked(folder) -> dict:
    """Name -> content of each data file."""
    pattern = r'\(globalThis.csktFiles \?\?= \{\}\)\["(.+)"\] = (.+);\n'
    contents = {}
    for path in folder.glob("*.data.js"):
        match = re.fullmatch(pattern, path.read_text())
        content = json.loads(match[2])
        if isinstance(content, str):
            content = gzip.decompress(base64.b64decode(content))
        contents[match[1]] = content
    return contents


def files_of(folder) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_page_s_files_are_data_only(search):
    page.write_page(**search)
    names = {"gallery", "queries", "tokenizer", "features", "encoder"}
    assert unpacked(search["folder"]).keys() == names
    assert files_of(search["folder"]).keys() == {f"{name}.data.js" for name in names}


def test_the_page_s_files_hold_what_python_found(search):
    page.write_page(**search)
    files = unpacked(search["folder"])
    split = search["loaded"].split
    features = np.frombuffer(files["features"], np.float32).reshape(12, 16)
    assert np.array_equal(features, search["image_features"].numpy())
    cosines = search["text_features"] @ search["image_features"].T
    expected = cosines.sort(dim=1, descending=True)
    assert files["queries"]["order"] == expected.indices[:, :10].tolist()
    assert np.allclose(files["queries"]["scores"], expected.values[:, :10], atol=1e-5)
    assert files["queries"]["captions"] == list(split.captions)
    assert files["gallery"]["identities"] == split.image_identities.tolist()
    assert files["gallery"]["cameras"] == 12 * [""]
    assert len(files["gallery"]["thumbnails"]) == 12
    assert files["encoder"] == b"an encoder"


def test_the_html_offers_an_example_and_runs_no_title(search):
    html = page.write_page(**search)
    assert "Drawn &lt;b&gt;people" in html
    assert search["loaded"].split.captions[3] in html


def test_the_html_asks_for_scripts_of_the_package_and_no_others(search):
    html = page.write_page(**search)
    asked = re.findall(r'(?:src|href)="\.\./_static/([^"]+)"', html)
    assert sorted(asked) == sorted(page.SCRIPTS)
    for name in asked:
        assert (page.ASSETS / name).is_file()


def test_the_book_puts_every_script_where_the_html_asks_for_it():
    configuration = (ROOT / "_config.yml").read_text()
    for name in page.SCRIPTS:
        assert f"/{name}\n" in configuration


def test_the_same_input_gives_the_same_page(search):
    html = page.write_page(**search)
    before = files_of(search["folder"])
    assert page.write_page(**search) == html
    assert files_of(search["folder"]) == before


def test_a_page_of_other_features_is_not_written(search):
    search["image_features"] = search["image_features"][1:]
    message = r"features of 12 images and 12 captions, got 2, 11 and 12\."
    with pytest.raises(CSKTError, match=message):
        page.write_page(**search)
    assert not search["folder"].exists()


def test_a_page_too_large_is_not_written(search, monkeypatch):
    monkeypatch.setattr(page, "LIMIT", 1e5)
    message = r"the page would load [\d.]+ MB, more than 0; use a smaller backbone"
    with pytest.raises(CSKTError, match=message):
        page.write_page(**search)
    assert not search["folder"].exists()


def test_photographs_are_no_page(model):
    photographs = types.SimpleNamespace(name="RSTPReid", synthetic=False)
    sentence = page.obstacle(model, photographs)
    assert sentence.startswith("RSTPReid shows photographs of people, which may not be")


def test_a_small_encoder_of_drawings_is_a_page_and_a_large_one_is_none(model, monkeypatch):
    drawn = types.SimpleNamespace(name="SynthPEDES-A", synthetic=True)
    assert page.obstacle(model, drawn) is None
    monkeypatch.setattr(page, "LIMIT", 1e4)
    assert "the page may load 0 MB" in page.obstacle(model, drawn)


def test_another_tokenizer_is_no_page(model, monkeypatch):
    drawn = types.SimpleNamespace(name="SynthPEDES-A", synthetic=True)
    monkeypatch.setattr(model, "tokenizer", lambda texts: None)
    assert page.obstacle(model, drawn).startswith("This backbone's tokenizer is not CLIP's")
