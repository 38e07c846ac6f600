"""Pre-training in stages gives the weights of an uninterrupted run, and what it ships can be
loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cskt.errors import ConfigurationError, RunError
from cskt.model import backbone
from cskt.synthetic import corpus, pretrain

WEIGHTS = "cskt-mini.safetensors"


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Batches of 16, chunks of 32 images, a checkpoint after every step."""
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus, "CHUNK", 32)
    monkeypatch.setattr(pretrain, "BATCH_SIZE", 16)
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY", 1)
    return tmp_path


@pytest.fixture
def drawn(small, monkeypatch):
    """A corpus of 32 images, drawn here and not by a pool of processes."""
    images = []
    facts = []
    for index in range(32):
        image, fact = corpus.corpus_item(index)
        images.append(image)
        facts.append(fact)
    monkeypatch.setattr(pretrain, "build_corpus", lambda *_: (np.stack(images), facts))
    return small


@pytest.mark.slow
def test_stages_equal_one_run(drawn):
    whole = pretrain.pretrain_mini(samples=48, images=32, output=drawn / "whole")
    for _ in range(3):
        staged = pretrain.pretrain_mini(
            samples=48, images=32, output=drawn / "staged", stop_after=1e-9
        )
    weights = load_file(whole / WEIGHTS)
    staged_weights = load_file(staged / WEIGHTS)
    assert weights.keys() == staged_weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, staged_weights[name]), name
    record = json.loads((staged / "cskt-mini.run.json").read_text())
    assert record["steps"] == 3
    assert record["known_tokens"] == len(weights["token_embedding.ids"])
    assert record["history"][-1]["scale"] != record["history"][0]["scale"]


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_arguments(drawn):
    pretrain.pretrain_mini(samples=16, images=32, output=drawn)
    with pytest.raises(RunError, match="belongs to another run"):
        pretrain.pretrain_mini(samples=64, images=32, output=drawn)


@pytest.mark.slow
def test_the_weights_are_those_of_a_backbone_that_can_be_loaded(drawn, monkeypatch):
    folder = pretrain.pretrain_mini(samples=16, images=32, output=drawn / "run")
    weights = load_file(folder / WEIGHTS)
    shutil.copy(Path(backbone.__file__).parents[1] / "assets" / "cskt-mini.json", folder)
    monkeypatch.setattr(backbone, "ASSETS", folder)
    loaded = backbone.create_backbone("cskt-mini")
    token = int(weights["token_embedding.ids"][5])
    expected = weights["token_embedding.rows"][5].float()
    assert torch.equal(loaded.token_embedding.weight[token], expected)


@pytest.mark.slow
def test_the_corpus_is_built_in_chunks_that_survive(small):
    folder = small / "corpus"
    images, facts = corpus.build_corpus(folder, 40, workers=1)
    assert images.shape == (64, 128, 64, 3)
    assert len(facts) == 64
    (folder / "1.json").unlink()
    again, _ = corpus.build_corpus(folder, 40, workers=1)
    assert np.array_equal(again, images)


def test_less_than_a_batch_is_refused(small):
    with pytest.raises(ConfigurationError, match="at least one batch"):
        pretrain.pretrain_mini(samples=3, output=small / "x")
