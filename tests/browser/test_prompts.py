"""The static view of attention to prompts in Chromium, from file://."""

from __future__ import annotations

import numpy as np
import pytest

from cskt.analysis.prompt_view import prompt_view

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
IMAGES = np.random.default_rng(0).integers(0, 255, (2, 128, 64, 3), dtype=np.uint8)
NAMES = ["projected 1", "projected 2", "own 1", "own 2"]
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "own 1",
    "b",
]
ALPHAS = """canvas => {
  const pen = canvas.getContext('2d');
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  return [...pixels].filter((value, place) => place % 4 === 3);
}"""


@pytest.fixture
def maps() -> np.ndarray:
    """(2, 3, 4, 8, 4): of two images, three layers and four prompts."""
    shares = np.random.default_rng(1).dirichlet(np.ones(41), (2, 3, 4))
    return shares[..., :32].reshape(2, 3, 4, 8, 4)


@pytest.fixture
def views(page, maps, tmp_path):
    """A page with two views, the second with hostile text."""
    first = prompt_view(IMAGES, maps, NAMES, "Where patches look")
    second = prompt_view(IMAGES, maps, HOSTILE, HOSTILE[1])
    head = "<!doctype html><meta charset=utf-8><title>view</title>"
    file = tmp_path / "view.html"
    file.write_text(head + first + second, encoding="utf-8")
    page.goto(file.as_uri(), wait_until="load")
    yield page.locator(".cskt-view")
    assert not page.errors
    assert page.evaluate("window.hacked") is None
    assert not [url for url in page.requests if not url.startswith(("file:", "data:"))]


@pytest.fixture
def view(views):
    return views.first


def overlay(view) -> str:
    """The pixels that shade the picture."""
    return view.locator("canvas").evaluate("canvas => canvas.toDataURL()")


def numbers(view) -> tuple[str, str]:
    """The lowest and the highest share."""
    return view.locator(".low").inner_text(), view.locator(".high").inner_text()


def ends(shares: np.ndarray) -> tuple[str, str]:
    return f"{shares.min():.4f}", f"{shares.max():.4f}"


def test_a_view_begins_with_the_first_image_layer_and_prompt(view, maps):
    assert numbers(view) == ends(maps[0, 0, 0])


def test_another_image_is_shown_with_its_own_numbers(view, maps):
    before = overlay(view)
    picture = view.locator(".stage img").get_attribute("src")
    view.locator("[role=radiogroup] img").nth(1).click()
    assert numbers(view) == ends(maps[1, 0, 0])
    assert overlay(view) != before
    assert view.locator(".stage img").get_attribute("src") != picture


def test_another_layer_and_another_prompt_are_shown_and_named(view, maps):
    first = overlay(view)
    view.get_by_label("Layer").fill("3")
    assert numbers(view) == ends(maps[0, 2, 0])
    second = overlay(view)
    view.get_by_label("Prompt").select_option("own 2")
    assert numbers(view) == ends(maps[0, 2, 3])
    assert len({first, second, overlay(view)}) == 3
    assert view.locator(".shown").inner_text() == "image 1, layer 3, prompt own 2"
    shaded = view.get_by_alt_text("image 1, layer 3, prompt own 2, shaded by attention")
    assert shaded.count() == 1


def test_the_keyboard_chooses_image_and_layer(view, maps):
    view.locator("[type=radio]").first.focus()
    view.page.keyboard.press("ArrowRight")
    assert numbers(view) == ends(maps[1, 0, 0])
    view.get_by_label("Layer").focus()
    view.page.keyboard.press("ArrowRight")
    assert numbers(view) == ends(maps[1, 1, 0])


def test_a_choice_leaves_the_other_view_as_it_is(views):
    other = views.nth(1)
    before = numbers(other), overlay(other)
    views.first.get_by_label("Layer").fill("3")
    assert (numbers(other), overlay(other)) == before
    identifiers = other.page.evaluate("[...document.querySelectorAll('[id]')].length")
    assert identifiers == 2


def test_the_overlay_is_strongest_where_attention_is(view, maps):
    alphas = view.locator("canvas").evaluate(ALPHAS)
    assert len(alphas) == 32
    assert np.argmax(alphas) == maps[0, 0, 0].argmax()
    assert min(alphas) == 0


def test_the_overlay_covers_the_picture(view):
    over = view.locator("canvas").bounding_box()
    under = view.locator(".stage img").bounding_box()
    assert over == under
