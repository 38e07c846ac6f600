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

from cskt import CSKTError, backbones, pretraining
from cskt.data.synthetic import corpus


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus, "CHUNK", 32)
    monkeypatch.setattr(pretraining, "BATCH_SIZE", 16)
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)
    return tmp_path


def test_stages_equal_one_run(small, monkeypatch):
    items = [corpus.corpus_item(index) for index in range(32)]
    drawn = np.stack([image for image, _ in items]), [facts for _, facts in items]
    monkeypatch.setattr(pretraining, "build_corpus", lambda *_: drawn)
    whole = pretraining.pretrain_mini(samples=48, images=32, output=small / "whole")
    for _ in range(3):
        staged = pretraining.pretrain_mini(
            samples=48, images=32, output=small / "staged", stop_after=1e-9
        )
    weights = [load_file(folder / "cskt-mini.safetensors") for folder in (whole, staged)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    record = json.loads((staged / "cskt-mini.run.json").read_text())
    assert record["steps"] == 3 and record["known_tokens"] == len(weights[0]["token_embedding.ids"])
    assert record["history"][-1]["scale"] != record["history"][0]["scale"]
    with pytest.raises(CSKTError, match="belongs to another run"):
        pretraining.pretrain_mini(samples=64, images=32, output=small / "staged")

    monkeypatch.setattr(backbones, "ASSETS", staged)
    shutil.copy(Path(backbones.__file__).parent / "assets" / "cskt-mini.json", staged)
    loaded = backbones.create_backbone("cskt-mini")
    row = int(weights[0]["token_embedding.ids"][5])
    assert torch.equal(
        loaded.token_embedding.weight[row], weights[0]["token_embedding.rows"][5].float()
    )


def test_the_corpus_is_built_in_chunks_that_survive(small, tmp_path):
    images, facts = corpus.build_corpus(tmp_path / "corpus", 40, workers=1)
    assert images.shape == (64, 128, 64, 3) and len(facts) == 64
    (tmp_path / "corpus" / "1.json").unlink()
    again, _ = corpus.build_corpus(tmp_path / "corpus", 40, workers=1)
    assert (again == images).all()


def test_too_few_samples(small):
    with pytest.raises(CSKTError, match="at least one batch"):
        pretraining.pretrain_mini(samples=3, output=small / "x")
