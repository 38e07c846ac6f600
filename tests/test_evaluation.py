"""Evaluation: features in order, ranking, and what bf16 changes."""

import dataclasses
import itertools
import json

import pytest
import torch

from cskt.data.augment import normalize
from cskt.data.datasets import load_dataset
from cskt.data.loading import load_images
from cskt.evaluation import embed, evaluate, load_split, precision_effect
from cskt.runs import build_model
from tests.tiny_runs import IMAGE_SIZE, tiny_config, write_dataset

pytestmark = [pytest.mark.numerics, pytest.mark.usefixtures("own_cache")]


@pytest.fixture
def dataset(tiny_data):
    return load_dataset("CUHK-PEDES", tiny_data)


@pytest.fixture
def model(tiny_data):
    return build_model(tiny_config(tiny_data))


def test_features_are_the_models_own_normalised_and_in_order(model, dataset):
    images, texts = embed(model, dataset.test, "fp32", batch_size=5)
    assert images.dtype == texts.dtype == torch.float32
    with torch.no_grad():
        pixels = normalize(load_images(dataset.test, IMAGE_SIZE))
        expected_images = model.encode_image(pixels, normalize=True)
        tokens = model.tokenize(list(dataset.test.captions))
        expected_texts = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(images, expected_images, rtol=0, atol=1e-5)
    torch.testing.assert_close(texts, expected_texts, rtol=0, atol=1e-5)


def test_evaluate_ranks_captions_against_images(model, dataset):
    metrics = evaluate(model, dataset.test, "fp32")
    images, texts = embed(model, dataset.test, "fp32")
    best = (texts @ images.T).argmax(dim=1).numpy()
    hits = dataset.test.image_identities[best] == dataset.test.caption_identities
    assert metrics["text_to_image"]["R@1"] == pytest.approx(100 * hits.mean())
    best = (images @ texts.T).argmax(dim=1).numpy()
    hits = dataset.test.caption_identities[best] == dataset.test.image_identities
    assert metrics["image_to_text"]["R@1"] == pytest.approx(100 * hits.mean())
    assert json.loads(json.dumps(metrics)) == metrics


def test_loaded_split_gives_the_same_numbers(model, dataset):
    loaded = load_split(model, dataset.val)
    assert evaluate(model, loaded, precision="fp32") == evaluate(model, dataset.val, "fp32")


def test_embedding_leaves_the_models_mode_and_gradients_alone(model, dataset):
    model.train()
    embed(model, dataset.val, "bf16")
    assert model.training
    model.eval()
    embed(model, dataset.val)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bf16_features_are_close_and_fp32(model, dataset):
    exact, _ = embed(model, dataset.val, "fp32")
    rounded, _ = embed(model, dataset.val, "bf16")
    assert rounded.dtype == torch.float32
    assert (exact * rounded).sum(dim=1).min() > 0.99
    torch.testing.assert_close(rounded.norm(dim=1), torch.ones(len(rounded)))


def test_figures_are_those_of_the_files_as_they_are(model, tmp_path, monkeypatch):
    """Equal names and no fingerprint, and files replaced in place: nothing of what was there
    before."""
    folders = [tmp_path / "one", tmp_path / "two"]
    splits = []
    for seed, folder in enumerate(folders):
        write_dataset(folder, seed=seed)
        test = load_dataset("CUHK-PEDES", folder).test
        splits.append(dataclasses.replace(test, fingerprint=""))
    features = []
    for split in splits:
        image_features, _ = embed(model, split, precision="fp32")
        features.append(image_features)
    write_dataset(folders[0], seed=3)
    image_features, _ = embed(model, splits[0], precision="fp32")
    features.append(image_features)
    for one, other in itertools.combinations(features, 2):
        assert not torch.allclose(one, other, atol=1e-4)
    figures = [evaluate(model, split, precision="fp32") for split in splits]
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    assert figures == [evaluate(model, split, precision="fp32") for split in splits]


def test_precision_effect_is_the_difference_of_two_evaluations(finished, dataset):
    model = finished.load_model()
    table = precision_effect(model, dataset.test)
    test = finished.record["metrics"]["text_to_image"]
    assert table.loc["fp32", "R@1"] == pytest.approx(test["R@1"])
    with model.fused(torch.bfloat16):  # on a machine without bf16 too
        expected = evaluate(model, dataset.test, "fp32")["text_to_image"]
    assert table.loc["bf16", "mAP"] == expected["mAP"]
    assert table.loc["bf16 - fp32", "mAP"] == table.loc["bf16", "mAP"] - table.loc["fp32", "mAP"]
