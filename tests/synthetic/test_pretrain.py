"""Pre-training gives the same weights for the same arguments, and what it ships can be loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cskt.errors import ConfigurationError
from cskt.model import backbone
from cskt.synthetic import corpus, pretrain

WEIGHTS = "cskt-mini.safetensors"


@pytest.fixture
def small(monkeypatch):
    """Batches of 16, a line of the history after every step, and a corpus of 32 images that is
    drawn here and not by a pool of processes."""
    monkeypatch.setattr(pretrain, "BATCH_SIZE", 16)
    monkeypatch.setattr(pretrain, "RECORD_EVERY", 1)
    images = []
    facts = []
    for index in range(32):
        image, fact = corpus.corpus_item(index)
        images.append(image)
        facts.append(fact)
    monkeypatch.setattr(pretrain, "build_corpus", lambda *_: (np.stack(images), facts))


@pytest.mark.slow
def test_the_same_arguments_give_the_same_weights_and_another_seed_others(small, tmp_path):
    weights = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        folder = pretrain.pretrain_mini(samples=32, images=32, output=tmp_path / name, seed=seed)
        weights[name] = load_file(folder / WEIGHTS)
    for name, tensor in weights["first"].items():
        assert torch.equal(tensor, weights["again"][name]), name
    assert not torch.equal(
        weights["first"]["positional_embedding"], weights["other"]["positional_embedding"]
    )


@pytest.mark.slow
def test_the_run_file_says_what_was_done(small, tmp_path):
    folder = pretrain.pretrain_mini(
        samples=48, images=32, output=tmp_path, environment={"commit": "abc"}
    )
    record = json.loads((folder / "cskt-mini.run.json").read_text())
    assert record["steps"] == 3
    assert [line["step"] for line in record["history"]] == [1, 2, 3]
    assert record["history"][0]["scale"] < record["history"][-1]["scale"]
    assert record["known_tokens"] == len(load_file(folder / WEIGHTS)["token_embedding.ids"])
    assert record["commit"] == "abc"


@pytest.mark.slow
def test_the_weights_are_those_of_a_backbone_that_can_be_loaded(small, tmp_path, monkeypatch):
    folder = pretrain.pretrain_mini(samples=16, images=32, output=tmp_path)
    weights = load_file(folder / WEIGHTS)
    shutil.copy(Path(backbone.__file__).parents[1] / "assets" / "cskt-mini.json", folder)
    monkeypatch.setattr(backbone, "ASSETS", folder)
    loaded = backbone.create_backbone("cskt-mini")
    token = int(weights["token_embedding.ids"][5])
    expected = weights["token_embedding.rows"][5].float()
    assert torch.equal(loaded.token_embedding.weight[token], expected)


@pytest.mark.slow
def test_the_corpus_is_drawn_once_and_in_order(tmp_path, monkeypatch):
    images, facts = corpus.build_corpus(tmp_path, 12, workers=1)
    assert images.shape == (12, 128, 64, 3)
    expected, fact = corpus.corpus_item(11)
    assert np.array_equal(images[11], expected)
    assert facts[11] == fact
    monkeypatch.setattr(corpus.multiprocessing, "get_context", lambda _: pytest.fail("drawn again"))
    again, _ = corpus.build_corpus(tmp_path, 12)
    assert np.array_equal(again, images)


def test_less_than_a_batch_is_refused(small, tmp_path):
    with pytest.raises(ConfigurationError, match="at least one batch"):
        pretrain.pretrain_mini(samples=3, output=tmp_path / "x")
