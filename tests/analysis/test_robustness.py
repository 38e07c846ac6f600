"""The test split under corruptions: null levels change nothing, draws depend on place and seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cskt import load_dataset
from cskt.analysis import robustness
from cskt.analysis.corruptions import LEVELS, NULL, OF_IMAGES, WORDING
from cskt.errors import DataError
from cskt.evaluation import evaluate
from cskt.synthetic import synthetic_dataset
from tests.probe_models import loaded_split, random_pictures, small_model
from tests.tiny_runs import write_dataset

SYNONYMS = {"person": ["somebody"]}


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def loaded(model):
    return loaded_split(model, people=6)


@pytest.fixture(scope="module")
def planned(loaded):
    return robustness.conditions(0, {"A": loaded.split.captions}, SYNONYMS)


def test_every_level_is_planned_once(planned):
    pairs = [(condition.corruption, condition.level) for condition in planned]
    expected = [(name, level) for name, levels in LEVELS.items() for level in levels]
    assert pairs == [*expected, (WORDING, "A")]


def test_without_a_table_no_synonyms_and_no_wording_are_planned():
    corruptions = {condition.corruption for condition in robustness.conditions(0, {}, {})}
    assert corruptions == set(LEVELS) - {"synonyms swapped"}


def test_null_levels_give_the_metrics_of_the_split_as_it_is(model, loaded, monkeypatch):
    null = {corruption: (level,) for corruption, level in NULL.items()}
    monkeypatch.setattr(robustness, "LEVELS", null)
    wordings = {"as it is": loaded.split.captions}
    planned = robustness.conditions(0, wordings, SYNONYMS)
    expected = evaluate(model, loaded, "fp32")["text_to_image"]
    for metrics in robustness.measure(model, loaded, "fp32", planned):
        assert metrics == expected


def test_conditions_change_one_side_each_and_the_same_ones_again(model, loaded, planned):
    first = list(robustness.measure(model, loaded, "fp32", planned))
    again = list(robustness.measure(model, loaded, "fp32", planned))
    assert first == again
    assert len(first) == 1 + len(planned)
    assert len({metrics["mAP"] for metrics in first}) > len(first) / 2
    for metrics in first:
        low, high = metrics["intervals"]["R@1"]
        assert low <= metrics["R@1"] <= high


@pytest.mark.parametrize("corruption", OF_IMAGES)
def test_an_image_s_draw_depends_on_its_place_and_the_seed_alone(corruption):
    level = LEVELS[corruption][0]
    images = random_pictures(5, seed=3)
    whole = robustness.corrupt_images(images, corruption, level, seed=1)
    part = robustness.corrupt_images(images[:2], corruption, level, seed=1)
    assert torch.equal(whole[:2], part)


def test_noise_differs_from_place_to_place_and_from_seed_to_seed():
    images = random_pictures(1, seed=3).repeat(2, 1, 1, 1)
    noisy = robustness.corrupt_images(images, "noise", 0.2, seed=1)
    other = robustness.corrupt_images(images, "noise", 0.2, seed=2)
    assert not torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy, other)


def test_captions_are_drawn_by_place_and_seed():
    captions = ["one two three four five six seven eight"] * 30
    drawn = robustness.corrupt_captions(captions, "words dropped", 0.5, seed=0)
    assert drawn[:3] == robustness.corrupt_captions(captions[:3], "words dropped", 0.5, seed=0)
    assert len(set(drawn)) > 15
    assert drawn != robustness.corrupt_captions(captions, "words dropped", 0.5, seed=1)


# The table of synonyms


def test_a_table_gives_every_word_its_synonyms(tmp_path):
    path = tmp_path / "synonyms.csv"
    path.write_text("note,synonym,word\n,top,Coat\n, parka ,coat\n,shades,dark glasses\n")
    assert robustness.read_synonyms(path) == {"coat": ["top", "parka"], "dark glasses": ["shades"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("from,to\na,b\n", "is no table of synonyms .* needs the columns word and synonym"),
        ("", "is no table of synonyms"),
        ("word,synonym\n", "holds no synonym"),
        ("word,synonym\na,b\nc,\n", "row 3: word or synonym is empty"),
        (b"\xff\xfe\x00", "is no table of synonyms"),
        (None, "is no table of synonyms .*No such file"),
    ],
)
def test_a_bad_table_gets_a_sentence(tmp_path, content, message):
    path = tmp_path / "synonyms.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as error:
        robustness.read_synonyms(path)
    assert "\n" not in str(error.value)


def test_images_of_the_split_are_left_as_they_are(model, loaded, planned):
    before = loaded.images.clone()
    for _ in robustness.measure(model, loaded, "fp32", planned):
        pass
    assert torch.equal(loaded.images, before)
    assert np.array_equal(loaded.tokens, model.tokenize(list(loaded.split.captions)))


def test_only_synthpedes_has_other_wordings(tmp_path):
    synthetic_dataset("SynthPEDES-A", tmp_path / "drawn", identities=(2, 1, 3))
    drawn = load_dataset("SynthPEDES-A", tmp_path / "drawn")
    wordings = robustness.wordings_of(drawn)
    assert list(wordings) == ["A", "B", "C"]
    for captions in wordings.values():
        assert len(captions) == len(drawn.test)
    real = load_dataset("CUHK-PEDES", write_dataset(tmp_path / "real"))
    assert robustness.wordings_of(real) == {}
