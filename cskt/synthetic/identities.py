"""Who is drawn: the attributes of a synthetic person, fixed over all images of that identity."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cskt.synthetic.tables import table

Colour = tuple[int, int, int]

_PEOPLE = table("people")
COLOURS: dict[str, Colour] = _PEOPLE["colours"]
HAIR_COLOURS: dict[str, Colour] = _PEOPLE["hair_colours"]
SKIN: tuple[Colour, ...] = _PEOPLE["skin"]


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
        odds = _PEOPLE["odds"][attribute]
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
    lower_colour = colour(_PEOPLE["jeans_colours"] if lower == "jeans" else COLOURS)
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
        shoe_colour=colour(_PEOPLE["shoe_colours"]),
        bag=draw("bag"),
        bag_colour=colour(),
        headwear=draw("headwear"),
        headwear_colour=colour(),
        eyewear=draw("eyewear"),
        scarf_colour=colour() if rng.random() < 0.12 else "none",
        umbrella_colour=colour() if rng.random() < 0.09 else "none",
    )
