"""A person in a pose: the measures from which body, garments and things are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cskt.synthetic.canvas import Points, to_colour
from cskt.synthetic.identities import HAIR_COLOURS, SKIN, Colour, Identity
from cskt.synthetic.style import Style
from cskt.synthetic.tables import table

_GIRTH: dict[str, float] = table("drawing")["girth"]
_CLOTH = ("upper", "inner", "lower", "shoes", "bag", "headwear", "scarf", "umbrella")


@dataclass(frozen=True)
class Head:
    """An ellipse around (0, ``y``) with radii ``rx`` and ``ry``, ``scale`` times as large as a
    natural one."""

    y: float
    rx: float
    ry: float
    scale: float


@dataclass(frozen=True)
class Figure:
    """One identity in one view. ``facing`` is 0 for front and back, 1 / -1 for a walk to the right
    / left; ``shoulder`` and ``hip`` are half widths; ``raised`` says that the arms are."""

    person: Identity
    view: str
    facing: int
    stride: float
    raised: bool
    shoulder: float
    hip: float
    head: Head
    cloth_colours: dict[str, Colour]

    @property
    def front(self) -> bool:
        return self.view == "front"

    @property
    def back(self) -> bool:
        return self.view == "back"

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of which an arm and an eye are seen: both, or the one that the person faces."""
        if self.facing:
            return (self.facing,)
        return (-1, 1)

    def leg(self, side: int) -> Points:
        """Hip, knee and ankle."""
        spread = 0.15 if self.facing else 0.5
        swing = 0.085 if self.facing else 0.012
        swing = swing * self.stride
        lift = 0.018 * max(0.0, side * self.stride)
        hip_x = side * self.hip * spread
        knee_x = hip_x + side * swing * 0.7 + 0.012 * self.facing
        apart = 0 if self.facing else side * 0.006
        ankle_x = hip_x + side * swing * 1.5 + apart
        return [(hip_x, 0.49), (knee_x, 0.27), (ankle_x, 0.05 + lift)]

    def lifts(self, side: int) -> bool:
        """Whether the arm on ``side`` is up: raised, or holding the umbrella."""
        holds_umbrella = self.person.umbrella_colour != "none" and (self.facing != 0 or side > 0)
        return self.raised or holds_umbrella

    def arm(self, side: int) -> Points:
        """Shoulder, elbow and wrist."""
        if self.facing:
            return self._arm_from_the_side(self.lifts(side))
        start = (side * self.shoulder * 0.92, 0.785)
        if self.lifts(side):
            return [start, (side * (self.shoulder + 0.035), 0.67), (side * self.shoulder, 0.78)]
        swing = 0.012 * self.stride * side
        elbow = (side * (self.shoulder + 0.022), 0.64)
        wrist = (side * (self.shoulder + 0.02) + swing, 0.49)
        return [start, elbow, wrist]

    def _arm_from_the_side(self, lifted: bool) -> Points:
        start = (0.0, 0.785)
        if lifted:
            return [start, (0.05 * self.facing, 0.66), (0.10 * self.facing, 0.78)]
        swing = -0.10 * self.stride
        return [start, (swing * 0.6, 0.64), (swing + 0.03 * self.facing, 0.49)]


def pose(
    person: Identity,
    view: str,
    style: Style,
    cloth_colours: dict[str, Colour],
    rng: np.random.Generator,
) -> Figure:
    """The person as the camera finds them; ``cloth_colours`` are the dyes of the place, by name."""
    stride = float(rng.uniform(*style.stride))
    if rng.random() >= 0.5:
        stride = -stride
    raised = bool(rng.random() < style.raise_arm)
    facing = {"left": -1, "right": 1}.get(view, 0)
    man = person.gender == "man"
    shoulder = (0.112 if man else 0.098) * _GIRTH[person.build]
    hip = (0.084 if man else 0.092) * _GIRTH[person.build]
    if facing:
        shoulder *= 0.62
        hip *= 0.72
    tall = 0.064 * style.head
    head = Head(y=0.862 + tall, rx=0.050 * style.head, ry=tall, scale=style.head)
    return Figure(person, view, facing, stride, raised, shoulder, hip, head, cloth_colours)


def palette(
    person: Identity,
    style: Style,
    cloth_colours: dict[str, Colour],
    rng: np.random.Generator,
) -> dict[str, Colour]:
    """The colour of every part of a person, each a little off the one that its name stands for."""
    colours = {"skin": SKIN[person.skin], "hair": HAIR_COLOURS[person.hair_colour]}
    for part in _CLOTH:
        colours[part] = cloth_colours.get(person.colour(part), (0, 0, 0))
    shifted = {}
    for part, rgb in colours.items():
        spread = style.palette_shift
        if part in ("skin", "hair"):  # they vary less than cloth
            spread = 0.4 * spread
        shifted[part] = to_colour(rgb + rng.normal(0, spread, 3))
    return shifted
