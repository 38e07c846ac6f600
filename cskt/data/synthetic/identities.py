"""Who is drawn: the attributes of a synthetic person, fixed over all images of that identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (32, 32, 36), "white": (236, 236, 232), "grey": (134, 136, 140), "red": (196, 38, 40),
    "orange": (232, 122, 32), "yellow": (236, 204, 56), "green": (44, 132, 66), "blue": (46, 96, 190),
    "navy": (28, 40, 88), "purple": (118, 62, 152), "pink": (234, 148, 176), "brown": (112, 74, 46),
    "beige": (214, 194, 158),
}
UPPER = ("t-shirt", "shirt", "hoodie", "jacket", "coat", "sweater", "vest", "dress")
LOWER = ("trousers", "jeans", "shorts", "skirt", "leggings")
PATTERNS = ("plain", "striped", "checked", "logo")
SHOES = ("sneakers", "boots", "shoes", "sandals")
BAGS = ("none", "backpack", "shoulder bag", "handbag")
HEADWEAR = ("none", "cap", "beanie", "hat")
EYEWEAR = ("none", "glasses", "sunglasses")
HAIR = ("short", "long", "ponytail", "bun", "bald")
HAIR_COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (26, 22, 22), "brown": (88, 56, 34), "blond": (214, 178, 104), "grey": (158, 156, 154),
    "red": (158, 68, 30),
}
SKIN = ((246, 214, 188), (226, 182, 146), (186, 132, 94), (122, 80, 54))


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

    def to_dict(self) -> dict[str, str | int]:
        return asdict(self)


def _other(rng: np.random.Generator, *taken: str) -> str:
    return str(rng.choice([name for name in COLOURS if name not in taken]))


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw one person; frequencies are those of a city street, roughly."""
    colours = list(COLOURS)
    woman = rng.random() < 0.5
    upper = str(rng.choice(UPPER[:-1], p=[0.24, 0.16, 0.14, 0.18, 0.10, 0.12, 0.06]))
    if woman and rng.random() < 0.22:
        upper = "dress"
    upper_colour = str(rng.choice(colours))
    pattern = str(rng.choice(PATTERNS, p=[0.58, 0.18, 0.12, 0.12]))
    if upper in ("jacket", "coat") or (upper == "vest" and pattern == "logo"):
        pattern = "plain"
    if upper == "dress" and pattern == "logo":
        pattern = "plain"
    lower = str(rng.choice(LOWER, p=[0.36, 0.26, 0.16, 0.12, 0.10] if woman else [0.46, 0.32, 0.22, 0.0, 0.0]))
    lower_colour = str(rng.choice(["blue", "navy", "black", "grey"] if lower == "jeans" else colours))
    hair = str(rng.choice(HAIR, p=[0.22, 0.42, 0.22, 0.14, 0.0] if woman else [0.80, 0.05, 0.02, 0.01, 0.12]))
    return Identity(
        gender="woman" if woman else "man",
        build=str(rng.choice(["slim", "average", "heavy"], p=[0.3, 0.5, 0.2])),
        skin=int(rng.integers(len(SKIN))),
        hair=hair,
        hair_colour=str(rng.choice(list(HAIR_COLOURS), p=[0.36, 0.28, 0.18, 0.10, 0.08])),
        upper=upper,
        upper_colour=upper_colour,
        pattern=pattern,
        pattern_colour=_other(rng, upper_colour),
        inner_colour=_other(rng, upper_colour),
        lower="none" if upper == "dress" else lower,
        lower_colour=lower_colour,
        shoes=str(rng.choice(SHOES, p=[0.46, 0.22, 0.22, 0.10])),
        shoe_colour=str(rng.choice(["black", "white", "brown", "grey", "red", "blue", "beige", "pink", "green"])),
        bag=str(rng.choice(BAGS, p=[0.40, 0.28, 0.18, 0.14])),
        bag_colour=str(rng.choice(colours)),
        headwear=str(rng.choice(HEADWEAR, p=[0.66, 0.16, 0.10, 0.08])),
        headwear_colour=str(rng.choice(colours)),
        eyewear=str(rng.choice(EYEWEAR, p=[0.72, 0.16, 0.12])),
        scarf_colour=str(rng.choice(colours)) if rng.random() < 0.12 else "none",
        umbrella_colour=str(rng.choice(colours)) if rng.random() < 0.09 else "none",
    )
