"""The demo of a run: its model beside the one before training, encoded once."""

from __future__ import annotations

import pytest

from cskt import training
from cskt.search import app
from cskt.search.gallery import Gallery
from tests.demos import cards, close, ids
from tests.tiny_runs import register_backbone, tiny_config, write_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    register_backbone(folder)
    return training.train(tiny_config(write_dataset(folder / "data"), folder / "run", epochs=1))


@pytest.fixture(scope="module")
def shown(run):
    shown = app.run_demo(run, examples=3)
    yield shown
    close(shown.galleries)


def test_a_run_is_compared_with_the_model_before_training(run, shown):
    assert list(shown.galleries) == ["CSKT", "zero-shot"]
    assert [len(gallery) for gallery in shown.galleries.values()] == [12, 12]
    assert shown.galleries["CSKT"].record["model"] == run.load_model().fingerprint()
    assert shown.galleries["zero-shot"].model.num_trainable == 0
    assert len(list(run.folder.glob("gallery-*.db"))) == 2


def test_examples_are_captions_and_the_note_says_what_is_searched(shown):
    assert len(shown.examples.options) == 4
    assert shown.note == "12 test images of CUHK-PEDES"


def test_the_captions_of_the_split_are_the_truth(shown):
    shown.examples.value = shown.examples.options[1][1]
    right = shown.truth[shown.asked.text]
    for card in cards(shown):
        assert ("✓ right" in card.picture.value) == (card.hit.identity in right)


def test_a_second_demo_encodes_nothing(run, shown, monkeypatch):
    shown.examples.value = shown.examples.options[1][1]
    monkeypatch.setattr(Gallery, "add", lambda *_: pytest.fail("encoded twice"))
    again = app.run_demo(run, examples=3)
    again.ask(shown.asked.text)
    assert ids(again) == ids(shown)
    close(again.galleries)
