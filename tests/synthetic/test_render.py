"""The renderer: deterministic pictures whose label maps are the truth about what is visible."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from cskt.synthetic.canvas import PART, PARTS, Viewpoint
from cskt.synthetic.domains import DOMAINS
from cskt.synthetic.identities import COLOURS, Identity, dyed, sample_identity
from cskt.synthetic.render import render
from cskt.synthetic.style import HEIGHT, WIDTH, Scene, Style

CLEAN = Style(
    light=(1.0, 1.0),
    palette_shift=0.0,
    noise=0.0,
    blur=(0.0, 0.0),
    outline=0.0,
    folds=0.0,
    volume=0.0,
    occlusion=0.0,
)


RED, BLUE = 0, 2  # channels
PLAIN = {
    "upper": "t-shirt",
    "pattern": "plain",
    "bag": "none",
    "scarf_colour": "none",
    "umbrella_colour": "none",
}


def person(seed: int = 0, **attributes: str) -> Identity:
    anybody = sample_identity(np.random.default_rng(seed))
    return dataclasses.replace(anybody, **{**PLAIN, **attributes})


def labels_of(who: Identity, view: str, style: Style = CLEAN, seed: int = 3) -> np.ndarray:
    _, labels = render(who, Scene(view, 0, seed), style)
    return labels


def area(labels: np.ndarray, part: str) -> int:
    return int((labels == PART[part]).sum())


def test_a_picture_and_its_label_map_have_the_documented_shapes():
    image, labels = render(person(), Scene("front", 1, 5), DOMAINS["B"].style)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert labels.shape == (HEIGHT, WIDTH)
    assert labels.max() < len(PARTS)


def test_a_scene_is_rendered_the_same_every_time_and_another_one_otherwise():
    style = DOMAINS["B"].style
    image, labels = render(person(), Scene("front", 1, 5), style)
    again, labels_again = render(person(), Scene("front", 1, 5), style)
    other, _ = render(person(), Scene("front", 1, 6), style)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("colour", ["red", "yellow", "blue", "green", "white", "black"])
@pytest.mark.parametrize("part", ["upper", "lower"])
def test_the_mask_covers_pixels_of_the_garment_s_colour(colour, part):
    """The mask and the picture agree: under clean light the median of a mask's pixels is the
    garment's colour."""
    clothes = {"lower": "trousers", f"{part}_colour": colour}
    image, labels = render(person(**clothes), Scene("front", 0, 3), CLEAN)
    mask = labels == PART[part]
    assert mask.sum() > 600
    seen = np.median(image[mask], axis=0)
    assert seen == pytest.approx(COLOURS[colour], abs=45)


def test_a_backpack_is_seen_from_behind_and_hardly_from_the_front():
    who = person(bag="backpack", headwear="none")
    assert area(labels_of(who, "back"), "bag") > 800
    front = labels_of(who, "front")
    assert area(front, "bag") <= 800
    assert area(front, "bag") < 0.5 * area(front, "upper")


def test_sunglasses_are_seen_from_the_front_only():
    who = person(eyewear="sunglasses", headwear="none")
    assert area(labels_of(who, "front"), "eyewear") > 0
    assert area(labels_of(who, "back"), "eyewear") == 0


def test_an_occluder_hides_pixels_and_the_mask_knows():
    behind = dataclasses.replace(CLEAN, occlusion=1.0)
    shoes_in_the_open = 0
    shoes_behind_it = 0
    for seed in range(6):
        clear = labels_of(person(seed), "front", CLEAN, seed)
        hidden = labels_of(person(seed), "front", behind, seed)
        assert area(hidden, "occluder") > 0
        shoes_in_the_open += area(clear, "shoes")
        shoes_behind_it += area(hidden, "shoes")
    assert shoes_behind_it < shoes_in_the_open


def mean_colour_of_a_coat(colour: str, camera: int, style: Style) -> np.ndarray:
    who = person(upper_colour=colour)
    image, labels = render(who, Scene("back", camera, camera), style)
    return image[labels == PART["upper"]].mean(axis=0)


@pytest.mark.parametrize("camera", range(5))
@pytest.mark.parametrize("domain", DOMAINS)
def test_light_and_tint_leave_red_red_and_blue_blue(domain, camera):
    style = DOMAINS[domain].style
    red_coat = mean_colour_of_a_coat("red", camera, style)
    blue_coat = mean_colour_of_a_coat("blue", camera, style)
    assert red_coat[RED] > red_coat[BLUE] + 20
    assert blue_coat[BLUE] > blue_coat[RED] + 20


def length_of_the_legs(pitch: float) -> int:
    style = dataclasses.replace(CLEAN, pitch=(pitch, pitch), zoom=(0.85, 0.85))
    labels = labels_of(person(lower="trousers"), "front", style)
    mask = labels == PART["lower"]
    rows = np.flatnonzero(mask.any(axis=1))
    return int(rows[-1] - rows[0])


def test_a_camera_above_shortens_the_legs():
    assert length_of_the_legs(pitch=0.4) < 0.9 * length_of_the_legs(pitch=0.0)


@pytest.mark.parametrize("roll", [0.0, 8.0])
def test_a_tilted_camera_turns_the_person(roll):
    viewpoint = Viewpoint(centre=64.0, base=250.0, height=200.0, roll=roll)
    top_x, _ = viewpoint.place(0.0, 1.0)
    bottom_x, _ = viewpoint.place(0.0, 0.0)
    angle = math.radians(roll)
    shift = 200.0 * math.sin(angle)
    assert top_x - bottom_x == pytest.approx(shift)


def test_cloth_is_dyed_as_it_is_named_unless_told_otherwise():
    assert dyed() == COLOURS


def test_pale_cloth_is_nearer_to_white():
    halfway = [round((channel + 255) / 2) for channel in COLOURS["black"]]
    assert dyed(paleness=0.5)["black"] == pytest.approx(halfway, abs=1)


def test_red_turned_by_a_third_of_the_circle_is_green():
    red, green, blue = dyed(hue=120.0)["red"]
    assert green > max(red, blue)


@pytest.mark.parametrize("domain", DOMAINS)
def test_days_are_bright(domain):
    """No domain is kept hard by darkness: the mean of its pictures is that of a photograph in
    daylight."""
    means = []
    for seed in range(5):
        who = sample_identity(np.random.default_rng(seed))
        image, _ = render(who, Scene("front", seed, seed), DOMAINS[domain].style)
        means.append(image.mean())
    assert 110 < np.mean(means) < 190
