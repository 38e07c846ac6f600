"""Hits, and the html that shows them: right numbers, and nothing in a text is ever run."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from cskt.errors import CSKTError
from cskt.html import STRONGEST
from cskt.search.hits import (
    Hit,
    contact_sheet,
    hit_figure,
    hit_picture,
    opacities,
    shaded,
    word_bars,
)
from cskt.search.pictures import digest_of

IMAGES = np.random.default_rng(0).integers(0, 255, (2, 32, 16, 3), dtype=np.uint8)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def hit(tmp_path):
    """A red picture in a file, with a thumbnail."""
    file = tmp_path / "red.png"
    Image.new("RGB", (16, 32), "red").save(file)
    thumbnail = tmp_path / "thumbnail.jpg"
    Image.new("RGB", (16, 32), "red").save(thumbnail)
    return Hit(digest_of(file), 0.5, str(file), thumbnail)


def mean_colour(hit: Hit) -> np.ndarray:
    return np.asarray(hit.image().convert("RGB")).reshape(-1, 3).mean(0)


def test_a_label_says_what_is_known():
    hit = Hit("0", 0.5, "/in/a.png", identity=7, time="2024", extra={"floor": 1, "hall": None})
    assert hit.label() == "a.png, identity 7, time 2024, floor 1"


def test_a_replaced_file_is_not_shown_for_the_one_indexed(hit):
    Image.new("RGB", (16, 32), "blue").save(hit.source)
    red, _, blue = mean_colour(hit)
    assert red > 240 and blue < 10  # the thumbnail's


def test_the_thumbnail_stands_for_a_file_that_is_gone(hit, tmp_path):
    (tmp_path / "red.png").unlink()
    assert mean_colour(hit)[0] > 240


def test_a_hit_without_its_files_says_so_and_has_an_empty_picture(hit, tmp_path):
    (tmp_path / "red.png").unlink()
    hit.thumbnail.unlink()
    with pytest.raises(CSKTError, match="gone"):
        hit.image()
    assert hit_picture(hit).startswith("data:image/jpeg")


def test_a_thumbnail_that_is_no_picture_is_not_embedded(hit):
    hit.thumbnail.write_text("a private key")
    assert "YSBwcml2YXRl" not in hit_picture(hit)
    assert hit_picture(hit).startswith("data:image/jpeg")  # of the file itself


def test_a_source_that_never_ends_is_not_read():
    hit = Hit("0", 0.5, "/dev/zero")
    with pytest.raises(CSKTError, match="gone"):
        hit.image()


def test_right_and_wrong_are_told_apart_by_more_than_colour():
    places = 3  # caption, alternative text and tooltip
    assert hit_figure("data:,", 1, 0.3, "a", True).count("✓ right") == places
    assert hit_figure("data:,", 2, 0.2, "b", False).count("✗ wrong") == places
    assert "<b>" not in hit_figure("data:,", 3, 0.1, "<b>", None)


def test_a_contact_sheet_shows_all_hits_and_runs_nothing(hit):
    hostile = Hit("1", 0.4, f"/in/{HOSTILE}.png")
    page = contact_sheet("<b>who</b>", [hit, hostile], ["a & b"])
    assert page.count('<img src="data:image/jpeg') == page.count(' alt="') == 2
    assert "<img src=x" not in page and "<b>" not in page
    assert "&lt;b&gt;who" in page and "a &amp; b" in page


def test_the_longest_bar_belongs_to_the_strongest_word():
    page = word_bars([("red", 0.1), ("<i>", -0.2), ("a", 0.0)])
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", page) == [
        ("50.0", "25.0"),
        ("0.0", "50.0"),
        ("50.0", "0.0"),
    ]
    assert "&lt;i&gt;" in page


def test_no_words_have_no_bars():
    assert "<b>" not in word_bars([])


def test_heat_is_clear_at_the_lowest_share_and_strongest_at_the_highest():
    shares = np.array([[0.1, 0.2], [0.3, 0.5]])
    assert opacities(shares).min() == 0
    assert opacities(shares)[1, 1] == pytest.approx(STRONGEST)
    page = shaded("data:,", shares, "<b>")
    assert re.findall(r'title="([\d.]+)"', page) == ["0.1000", "0.2000", "0.3000", "0.5000"]
    assert "<b>" not in page


def test_equal_shares_are_all_clear():
    assert not opacities(np.full((2, 2), 0.25)).any()
