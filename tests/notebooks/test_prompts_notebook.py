"""The prompts notebook and what it looks at, on a small SynthPEDES."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import papermill
import pytest

from cskt import TrainConfig, train
from cskt.analysis import page
from cskt.errors import ConfigurationError
from cskt.synthetic import synthetic_dataset

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "prompts.ipynb"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").mkdir()
    synthetic_dataset("SynthPEDES-A", folder / "data", identities=(12, 4, 8))
    return folder


def execute(project: Path, **parameters) -> list[dict]:
    """The outputs of the notebook after one epoch of training."""
    short = dict(dataset="SynthPEDES-A", data_root=str(project / "data"), epochs=1, examples=6)
    copy = project / "out.ipynb"
    executed = papermill.execute_notebook(
        NOTEBOOK, copy, {**short, **parameters}, cwd=project, progress_bar=False
    )
    outputs = []
    for cell in executed.cells:
        outputs += cell.get("outputs", [])
    return outputs


def text_of(outputs: list[dict]) -> str:
    said = [str(output.get("text", "")) for output in outputs]
    shown = [str(output.get("data", "")) for output in outputs]
    return "\n".join(said + shown)


def test_the_notebook_shows_every_part(project):
    outputs = execute(project)
    text = text_of(outputs)
    assert page.NO_PROMPTS not in text
    for part in ("if spread evenly", "cskt-view", "lost", "modality gap"):
        assert part in text
    assert "pointing: CSKT less full fine-tuning" in text
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) >= 10


def test_a_run_without_prompts_says_so(project):
    text = text_of(execute(project, method="dat", layers=[1, 6]))
    assert text.count(page.NO_PROMPTS) >= 4
    assert "adapter" in text
    assert "pointing: dat less" in text


@pytest.fixture(scope="module")
def run(project):
    output = str(project / "cskt")
    return train(TrainConfig.mini(data_root=str(project / "data"), epochs=1, output=output))


@pytest.fixture(scope="module")
def view(run):
    return page.View(run, example=3, layers=[2, 5])


@pytest.mark.parametrize("choice", [(99, None), (-1, None), (0, [7]), (0, [0])])
def test_a_view_of_what_does_not_exist_is_refused(run, choice):
    message = "test image from 0 to 31 and layers from 1 to 6"
    with pytest.raises(ConfigurationError, match=message):
        page.View(run, *choice)


def test_a_view_shows_the_example_first_and_then_one_image_a_person(view):
    identities = view.test.image_identities
    example, *others = view.shown
    assert example == 3
    people = set(identities[others])
    assert len(people) == len(others) == 8


def test_a_view_shows_a_caption_of_the_example(view):
    captions = np.flatnonzero(view.test.caption_images == 3)
    assert view.caption == view.test.captions[captions[0]]


def test_layers_are_counted_from_0_within(view):
    assert view.layers_of("vision") == [1, 4]


def test_every_word_has_an_effect_in_each_model(view):
    effects = view.word_effects()
    assert set(effects) == {"zero-shot", "CSKT"}
    for of_model in effects.values():
        assert of_model.shape == (len(view.caption.split()),)


def test_phrases_are_the_mentions_of_the_example(view):
    mentions = view.mentions()
    phrases = view.phrases()
    assert len(phrases) == len(mentions) > 0
    for phrase, mention in zip(phrases, mentions, strict=True):
        assert phrase.words in mention.caption
        assert set(phrase.maps) == {"zero-shot", "CSKT"}
        assert (phrase.mask == mention.mask).all()


def test_without_masks_every_longer_word_stands_for_itself(view, monkeypatch):
    monkeypatch.setattr(view, "mentions", lambda images=None: [])
    phrases = view.phrases()
    words = [word.strip(".,") for word in view.caption.split()]
    long = [word for word in words if len(word) > 3]
    assert [phrase.words for phrase in phrases] == long
    assert all(phrase.mask is None for phrase in phrases)


def test_space_holds_images_and_captions_of_a_few_people(view):
    space = view.space(people=2)
    assert space.is_image.sum() == 8
    assert set(space.labels) == {"person", "upper garment"}
    assert len(set(space.labels["person"])) == 2
    for points in space.points.values():
        assert points.shape == (len(space.is_image), 2)
    assert set(space.gaps) == {"zero-shot", "CSKT"}
