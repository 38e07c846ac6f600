"""Relevance and grounding: what decides is found, and pointing is counted right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cskt import CSKT, CSKTConfig
from cskt.analysis import grounding, intervals, relevance
from cskt.data.augment import normalize
from cskt.errors import ConfigurationError, DataError
from cskt.synthetic.mentions import Mention
from tests.probe_models import CAPTIONS, COLUMNS, ROWS, random_pictures, small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def pictures():
    return random_pictures(3, seed=1)


@torch.no_grad()
def feature(model, caption: str) -> torch.Tensor:
    """(1, D), L2-normalised."""
    token_ids = model.tokenize(caption)
    return model.encode_text(token_ids, normalize=True)


# Relevance


def strongest_patch(model, row: int, column: int) -> int:
    """Number of the most relevant patch of a grey picture in which the given one differs, for the
    direction in which that moves the feature."""
    grey = torch.full((1, 3, 64, 32), 120, dtype=torch.uint8)
    spot = grey.clone()
    patches = spot.view(1, 3, ROWS, 16, COLUMNS, 16)
    patches[:, 0, row, :, column] = 255
    image = normalize(spot)
    with torch.no_grad():
        with_spot = model.encode_image(image, normalize=True)
        without = model.encode_image(normalize(grey), normalize=True)
    maps = relevance.image_relevance(model, image, with_spot - without)
    assert maps.shape == (1, ROWS, COLUMNS)
    assert (maps >= 0).all()
    return int(maps.argmax())


def test_relevance_finds_the_patch_that_decides(model):
    found = 0
    for patch in range(ROWS * COLUMNS):
        row, column = divmod(patch, COLUMNS)
        if strongest_patch(model, row, column) == patch:
            found += 1
    assert found >= 6, "a random map would find one of eight"


def test_zero_shot_models_have_relevance_too(pictures):
    config = CSKTConfig().for_method("zero-shot")
    model = CSKT(small_model().backbone, config).eval()
    maps = relevance.image_relevance(model, normalize(pictures), torch.randn(3, 16))
    assert maps.max() > 0


def test_a_word_adds_what_is_missing_without_it(model):
    differences = relevance.word_differences(model, "a man in red")
    expected = feature(model, "a man in red") - feature(model, "a man in")
    assert differences.shape == (4, 16)
    torch.testing.assert_close(differences[3:], expected)


# Grounding


def test_grounding_is_of_the_direction_of_the_words(model, pictures):
    spans = [(2, 4), (0, 1)]
    maps = grounding.ground(model, pictures[:2], CAPTIONS[:2], spans, batch_size=1)
    assert maps.shape == (2, ROWS, COLUMNS)
    direction = feature(model, "a man in red") - feature(model, "a man")
    image = normalize(pictures[:1])
    expected = relevance.image_relevance(model, image, direction)
    torch.testing.assert_close(maps[:1], expected)


def test_nothing_to_ground_gives_no_maps(model, pictures):
    assert grounding.ground(model, pictures[:0], [], []).shape == (0, ROWS, COLUMNS)


@pytest.fixture
def masks():
    """Three masks (8, 4) whose cells in a map (4, 2) are two by two pixels."""
    masks = np.zeros((3, 8, 4), bool)
    masks[0, 0, 0] = True  # touches the cell (0, 0) only
    masks[1, 2:6, :] = True  # the four cells in the middle
    masks[2, :2, :2] = True
    return masks


@pytest.fixture
def maps():
    """The highest cells of the first two are right, that of the third is wrong."""
    maps = np.zeros((3, 4, 2))
    maps[0, 0, 0] = 1
    maps[1, 1, 0] = 4
    maps[1, 0, 0] = 2
    maps[2, 3, 1] = 1
    return maps


def test_pointing_on_hand_made_maps(maps, masks):
    right, half_covered, wrong = grounding.pointing(maps, masks).to_dict("records")
    assert right["pointing"] == 1
    assert right["by chance"] == 1 / 8
    assert half_covered["pointing"] == 1
    assert half_covered["by chance"] == 4 / 8
    assert wrong["pointing"] == 0


def test_chance_is_what_random_maps_reach(masks):
    mask = masks[1]
    draws = 4000
    random_maps = np.random.default_rng(0).random((draws, 4, 2))
    same_mask = np.broadcast_to(mask, (draws, *mask.shape)).copy()
    drawn = grounding.pointing(random_maps, same_mask)
    expected = drawn["by chance"].iloc[0]
    assert drawn["pointing"].mean() == pytest.approx(expected, abs=0.03)


def test_cells_need_not_be_whole_pixels_of_the_mask():
    """ViT-B/16's cells at 384x128 are no whole pixels of a mask 128x64."""
    heat = np.zeros((1, 24, 8))
    heat[0, 12, 4] = 1
    mask = np.zeros((1, 128, 64), bool)
    mask[0, 64:69, 32:40] = True
    hit = grounding.pointing(heat, mask)
    assert hit["pointing"].tolist() == [1]
    moved = np.roll(heat, 3, axis=1)
    miss = grounding.pointing(moved, mask)
    assert miss["pointing"].tolist() == [0]


def test_an_empty_mask_is_refused(maps, masks):
    with pytest.raises(DataError, match="touch a cell"):
        grounding.pointing(maps, np.zeros_like(masks))


def test_a_mask_is_needed_for_each_map(maps, masks):
    with pytest.raises(ConfigurationError, match="one mask for each map, got 2 for 3"):
        grounding.pointing(maps, masks[:2])


@pytest.fixture(scope="module")
def scores(model, pictures):
    """Of one model under two names, over six mentions of three people."""
    mask = np.zeros((64, 32), bool)
    mask[:16, :16] = True
    mentions = []
    for number in range(6):
        person = number % 3
        mentions.append(Mention(person, person, "a man in red", (2, 4), "upper", mask))
    return grounding.grounding_scores({"one": model, "other": model}, pictures, mentions)


def test_the_table_has_a_row_per_part_and_one_for_all(scores):
    table = grounding.grounding_table(scores).set_index("part")
    assert list(table.index) == ["upper", "all"]
    assert table.loc["all", "mentions"] == 6
    assert table.loc["all", "one"] == table.loc["all", "other"]


def test_equal_models_are_not_told_apart(scores):
    line = grounding.grounding_finding(scores, "one", "other")
    assert "+0.0 points" in line
    assert line.endswith("not reliable.")


def test_a_model_that_always_points_right_is_told_from_one_that_never_does(scores):
    is_first = scores["model"] == "one"
    better = scores.assign(pointing=is_first.astype(float))
    line = grounding.grounding_finding(better, "one", "other")
    assert line == "pointing: one less other: +100.0 points (+100.0 to +100.0), reliable."


def test_an_interval_holds_its_mean_and_draws_groups_together():
    values = np.array([0.0, 0.0, 1.0, 1.0])
    alone = intervals.mean_interval(values, [0, 1, 2, 3])
    together = intervals.mean_interval(values, [0, 0, 1, 1])
    assert alone.mean == together.mean == 0.5
    assert alone.low <= alone.mean <= alone.high
    assert (together.low, together.high) == (0, 1), "one group or the other, whole"
