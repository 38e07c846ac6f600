"""The renderer: deterministic pictures whose label maps are the truth about what is visible."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cskt.data.synthetic.canvas import PART, PARTS, Viewpoint
from cskt.data.synthetic.domains import DOMAINS
from cskt.data.synthetic.identities import COLOURS, dyed, sample_identity
from cskt.data.synthetic.render import render
from cskt.data.synthetic.style import HEIGHT, WIDTH, Scene, Style

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


def person(seed=0, **attributes):
    plain = dict(
        upper="t-shirt", pattern="plain", bag="none", scarf_colour="none", umbrella_colour="none"
    )
    return dataclasses.replace(
        sample_identity(np.random.default_rng(seed)), **{**plain, **attributes}
    )


def test_shapes_and_determinism():
    first, second = (render(person(), Scene("front", 1, 5), DOMAINS["B"]) for _ in range(2))
    image, labels = first
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert labels.shape == (HEIGHT, WIDTH) and labels.max() < len(PARTS)
    assert np.array_equal(image, second[0]) and np.array_equal(labels, second[1])
    assert not np.array_equal(image, render(person(), Scene("front", 1, 6), DOMAINS["B"])[0])


@pytest.mark.parametrize("colour", ["red", "yellow", "blue", "green", "white", "black"])
@pytest.mark.parametrize("part", ["upper", "lower"])
def test_the_mask_covers_pixels_of_the_garment_s_colour(colour, part):
    """The mask and the picture agree: under clean light the median of a mask's pixels is the
    garment's colour."""
    who = person(lower="trousers", **{f"{part}_colour": colour})
    image, labels = render(who, Scene("front", 0, 3), CLEAN)
    mask = labels == PART[part]
    assert mask.sum() > 600
    assert np.abs(np.median(image[mask], axis=0) - COLOURS[colour]).max() < 45


@pytest.mark.parametrize(
    ("view", "sees_backpack", "sees_glasses"), [("front", False, True), ("back", True, False)]
)
def test_views_hide_what_they_should(view, sees_backpack, sees_glasses):
    who = person(bag="backpack", eyewear="sunglasses", headwear="none")
    _, labels = render(who, Scene(view, 0, 3), CLEAN)
    bag, torso = (labels == PART["bag"]).sum(), (labels == PART["upper"]).sum()
    assert (bag > 800) == sees_backpack and (bag < 0.5 * torso or sees_backpack)
    assert bool((labels == PART["eyewear"]).any()) == sees_glasses


def test_an_occluder_hides_pixels_and_the_mask_knows():
    behind = dataclasses.replace(CLEAN, occlusion=1.0)
    clear = [render(person(s), Scene("front", 0, s), CLEAN)[1] for s in range(6)]
    hidden = [render(person(s), Scene("front", 0, s), behind)[1] for s in range(6)]
    assert all((labels == PART["occluder"]).any() for labels in hidden)
    assert sum((labels == PART["shoes"]).sum() for labels in hidden) < sum(
        (labels == PART["shoes"]).sum() for labels in clear
    )


def test_domains_keep_colours_apart():
    """Light and tint must not destroy colour: red and blue coats stay on their side in every
    domain."""
    for domain, style in DOMAINS.items():
        for camera in range(5):
            means = {}
            for colour in ("red", "blue"):
                image, labels = render(
                    person(upper_colour=colour), Scene("back", camera, camera), style
                )
                means[colour] = image[labels == PART["upper"]].mean(axis=0)
            assert means["red"][0] > means["red"][2] + 20, (domain, camera)
            assert means["blue"][2] > means["blue"][0] + 20, (domain, camera)


def test_a_camera_above_shortens_the_legs():
    lengths = []
    for pitch in (0.0, 0.4):
        style = dataclasses.replace(CLEAN, pitch=(pitch, pitch), zoom=(0.85, 0.85))
        _, labels = render(person(lower="trousers"), Scene("front", 0, 3), style)
        rows = np.flatnonzero((labels == PART["lower"]).any(axis=1))
        lengths.append(rows[-1] - rows[0])
    assert lengths[1] < 0.9 * lengths[0]


def test_a_tilted_camera_turns_the_person():
    shifts = []
    for roll in (0.0, 8.0):
        viewpoint = Viewpoint(centre=64.0, base=250.0, height=200.0, roll=roll)
        top, bottom = viewpoint.place(0.0, 1.0), viewpoint.place(0.0, 0.0)
        shifts.append(top[0] - bottom[0])
    assert shifts[0] == pytest.approx(0.0)
    assert shifts[1] == pytest.approx(200.0 * np.sin(np.radians(8.0)))


def test_dyed_cloth():
    assert dyed() == COLOURS
    pale, turned = dyed(paleness=0.5), dyed(hue=120.0)
    assert pale["black"] == tuple(
        round(255 * (0.5 + 0.5 * channel / 255)) for channel in COLOURS["black"]
    )
    assert turned["red"][1] == max(turned["red"])  # red turned by a third of the circle is green


def test_days_are_bright():
    """No domain is kept hard by darkness: the mean of its pictures is that of a photograph in
    daylight."""
    for domain, style in DOMAINS.items():
        pictures = [
            render(sample_identity(np.random.default_rng(seed)), Scene("front", seed, seed), style)[
                0
            ]
            for seed in range(5)
        ]
        assert 110 < np.mean(pictures) < 190, domain
