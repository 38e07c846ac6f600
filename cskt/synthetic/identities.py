"""Who is drawn: the attributes of a synthetic person, fixed over all images of that identity."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "black": (32, 32, 36),
    "white": (236, 236, 232),
    "grey": (134, 136, 140),
    "red": (196, 38, 40),
    "orange": (232, 122, 32),
    "yellow": (236, 204, 56),
    "green": (44, 132, 66),
    "blue": (46, 96, 190),
    "navy": (28, 40, 88),
    "purple": (118, 62, 152),
    "pink": (234, 148, 176),
    "brown": (112, 74, 46),
    "beige": (214, 194, 158),
}
HAIR_COLOURS: dict[str, Colour] = {
    "black": (26, 22, 22),
    "brown": (88, 56, 34),
    "blond": (214, 178, 104),
    "grey": (158, 156, 154),
    "red": (158, 68, 30),
}
SKIN = ((246, 214, 188), (226, 182, 146), (186, 132, 94), (122, 80, 54))


def dyed(hue: float = 0.0, paleness: float = 0.0) -> dict[str, Colour]:
    """:data:`COLOURS` as cloth is dyed elsewhere: hues turned by ``hue`` degrees, and a share
    ``paleness`` of the way to white."""
    table = {}
    for name, rgb in COLOURS.items():
        shares = [channel / 255 for channel in rgb]
        own_hue, saturation, value = colorsys.rgb_to_hsv(*shares)
        turned_hue = (own_hue + hue / 360) % 1.0
        red, green, blue = colorsys.hsv_to_rgb(turned_hue, saturation, value)
        table[name] = (
            _bleached(red, paleness),
            _bleached(green, paleness),
            _bleached(blue, paleness),
        )
    return table


def _bleached(channel: float, paleness: float) -> int:
    pale = channel + paleness * (1 - channel)
    return round(255 * pale)


_JEANS_COLOURS = ("blue", "navy", "black", "grey")
_SHOE_COLOURS = ("black", "white", "brown", "grey", "red", "blue", "beige", "pink", "green")
# How often each value is drawn: as in a city street, roughly.
_ODDS: dict[str, dict[str, float]] = {
    "upper": {
        "t-shirt": 0.24,
        "shirt": 0.16,
        "hoodie": 0.14,
        "jacket": 0.18,
        "coat": 0.10,
        "sweater": 0.12,
        "vest": 0.06,
    },
    "pattern": {"plain": 0.58, "striped": 0.18, "checked": 0.12, "logo": 0.12},
    "woman's lower": {
        "trousers": 0.36,
        "jeans": 0.26,
        "shorts": 0.16,
        "skirt": 0.12,
        "leggings": 0.10,
    },
    "man's lower": {"trousers": 0.46, "jeans": 0.32, "shorts": 0.22},
    "woman's hair": {"short": 0.22, "long": 0.42, "ponytail": 0.22, "bun": 0.14},
    "man's hair": {"short": 0.80, "long": 0.05, "ponytail": 0.02, "bun": 0.01, "bald": 0.12},
    "build": {"slim": 0.3, "average": 0.5, "heavy": 0.2},
    "hair_colour": {"black": 0.36, "brown": 0.28, "blond": 0.18, "grey": 0.10, "red": 0.08},
    "shoes": {"sneakers": 0.46, "boots": 0.22, "shoes": 0.22, "sandals": 0.10},
    "bag": {"none": 0.40, "backpack": 0.28, "shoulder bag": 0.18, "handbag": 0.14},
    "headwear": {"none": 0.66, "cap": 0.16, "beanie": 0.10, "hat": 0.08},
    "eyewear": {"none": 0.72, "glasses": 0.16, "sunglasses": 0.12},
}


@dataclass(frozen=True)
class Identity:
    """The attribute table's row. A dress has no lower garment: ``lower`` is then ``"none"``."""

    gender: str
    build: str
    skin: int
    hair: str
    hair_colour: str
    upper: str
    upper_colour: str
    pattern: str
    pattern_colour: str
    inner_colour: str
    lower: str
    lower_colour: str
    shoes: str
    shoe_colour: str
    bag: str
    bag_colour: str
    headwear: str
    headwear_colour: str
    eyewear: str
    scarf_colour: str
    umbrella_colour: str

    def colour(self, part: str) -> str:
        """The name of the colour of a garment or thing."""
        if part == "shoes":
            return self.shoe_colour
        return getattr(self, f"{part}_colour")


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw one person."""

    def draw(attribute: str) -> str:
        odds = _ODDS[attribute]
        return str(rng.choice(list(odds), p=list(odds.values())))

    def colour(names: Iterable[str] = COLOURS, other_than: str = "") -> str:
        return str(rng.choice([name for name in names if name != other_than]))

    woman = rng.random() < 0.5
    whose = "woman's" if woman else "man's"
    upper = draw("upper")
    if woman and rng.random() < 0.22:
        upper = "dress"
    upper_colour = colour()
    pattern = draw("pattern")
    if upper in ("jacket", "coat"):
        pattern = "plain"
    if upper in ("vest", "dress") and pattern == "logo":
        pattern = "plain"
    lower = draw(f"{whose} lower")
    lower_colour = colour(_JEANS_COLOURS if lower == "jeans" else COLOURS)
    return Identity(
        gender="woman" if woman else "man",
        upper=upper,
        upper_colour=upper_colour,
        pattern=pattern,
        lower="none" if upper == "dress" else lower,
        lower_colour=lower_colour,
        hair=draw(f"{whose} hair"),
        build=draw("build"),
        skin=int(rng.integers(len(SKIN))),
        hair_colour=draw("hair_colour"),
        pattern_colour=colour(other_than=upper_colour),
        inner_colour=colour(other_than=upper_colour),
        shoes=draw("shoes"),
        shoe_colour=colour(_SHOE_COLOURS),
        bag=draw("bag"),
        bag_colour=colour(),
        headwear=draw("headwear"),
        headwear_colour=colour(),
        eyewear=draw("eyewear"),
        scarf_colour=colour() if rng.random() < 0.12 else "none",
        umbrella_colour=colour() if rng.random() < 0.09 else "none",
    )
