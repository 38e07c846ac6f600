"""The static view of attention to prompts: right numbers, and nothing in a text is ever run."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cskt.analysis.prompt_view import prompt_view
from cskt.errors import ConfigurationError

IMAGES = np.random.default_rng(0).integers(0, 255, (2, 32, 16, 3), dtype=np.uint8)
MAPS = np.linspace(0, 0.1, 2 * 3 * 2 * 8).reshape(2, 3, 2, 4, 2)
NAMES = ["own 1", "own 2"]


def test_the_view_holds_the_maps_in_ten_thousandths():
    view = prompt_view(IMAGES, MAPS, NAMES)
    assert "[[[[0,11,21,32,42,53,63,74],[84," in view
    assert view.count('alt="image ') == 2
    assert "http" not in view, "nothing is loaded from elsewhere"


def test_text_is_escaped():
    view = prompt_view(IMAGES, MAPS, ["</script><b>", "own 1"], '"><i>')
    assert view.count("</script>") == 1
    assert not re.search(r"<i>|</script><b>", view)


def test_two_views_of_the_same_maps_can_stand_on_one_page():
    views = [prompt_view(IMAGES, MAPS, NAMES) for _ in range(2)]
    identifiers = [re.search('id="([^"]+)"', view)[1] for view in views]
    assert identifiers[0] != identifiers[1]


@pytest.mark.parametrize(
    "maps", [MAPS[:1], MAPS[:, :, :1], MAPS * np.nan], ids=["images", "prompts", "finite"]
)
def test_maps_that_do_not_fit_are_refused(maps):
    with pytest.raises(ConfigurationError, match="must be finite, of 2 images and 2 prompts"):
        prompt_view(IMAGES, maps, NAMES)
