"""The drawn person: shapes of one identity on a colour canvas and a label canvas at once, in
painter's order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .identities import HAIR_COLOURS, SKIN, Colour, Identity

PARTS = (
    "background",
    "skin",
    "hair",
    "upper",
    "inner",
    "lower",
    "shoes",
    "bag",
    "headwear",
    "eyewear",
    "scarf",
    "umbrella",
    "occluder",
)
PART = {name: index for index, name in enumerate(PARTS)}

Points = list[tuple[float, float]]
Tone = float | Colour  # a factor on the part's own colour, or another colour

# An upper garment's hem, its flare there, and the sleeve's widths: two for a short sleeve, three
# for a long one.
_SHORT, _LONG, _THICK = (
    (0.064, 0.062),
    (0.052 * 1.1, 0.052, 0.052 * 0.8),
    (0.062 * 1.1, 0.062, 0.062 * 0.8),
)
_CUTS: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "t-shirt": (0.47, 1.05, _SHORT),
    "shirt": (0.47, 1.05, _LONG),
    "hoodie": (0.46, 1.1, _THICK),
    "jacket": (0.47, 1.05, _THICK),
    "coat": (0.31, 1.2, _THICK),
    "sweater": (0.47, 1.08, _THICK),
    "vest": (0.50, 1.0, ()),
    "dress": (0.29, 1.6, _SHORT),
}


def to_colour(rgb: np.ndarray) -> Colour:
    """Three channels cut to what a pixel holds."""
    red, green, blue = np.clip(rgb, 0, 255)
    return int(red), int(green), int(blue)


def _mirrored(points: Points) -> list[Points]:
    """The points on the picture's left side, and on its right."""
    return [[(side * x, y) for x, y in points] for side in (-1, 1)]


@dataclass(frozen=True)
class Viewpoint:
    """From where the camera looks at a person.

    ``centre`` and ``base`` are the pixel of the point between the feet, ``height`` the person's
    height in pixels. ``pitch`` 0 is at eye level; at 0.3 the camera hangs above, so that legs look
    short and the head large. ``roll`` is the camera's tilt in degrees.
    """

    centre: float
    base: float
    height: float
    pitch: float = 0.0
    roll: float = 0.0

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point in figure units: x right of the middle, y above the ground, 1 = body
        height."""
        seen_x = x * (1 + self.pitch * (y - 0.5))
        seen_y = y - self.pitch * y * (1 - y)
        angle = math.radians(self.roll)
        up = seen_y - 0.5
        turned_x = seen_x * math.cos(angle) + up * math.sin(angle)
        turned_y = up * math.cos(angle) - seen_x * math.sin(angle) + 0.5
        return self.centre + turned_x * self.height, self.base - turned_y * self.height


class Canvas:
    """Paints colour and part label with the same strokes, in the figure units of
    :class:`Viewpoint`."""

    def __init__(self, background: Image.Image, viewpoint: Viewpoint) -> None:
        self.colour, self.label = background, Image.new("L", background.size, 0)
        self.pens = ImageDraw.Draw(self.colour), ImageDraw.Draw(self.label)
        self.viewpoint = viewpoint
        self.height = viewpoint.height
        self.palette: dict[str, Colour] = {}

    def _colour(self, part: str, tone: Tone) -> Colour:
        return tone if isinstance(tone, tuple) else to_colour(np.multiply(self.palette[part], tone))

    def polygon(self, points: Points, part: str, tone: Tone = 1.0) -> None:
        pixels = [self.viewpoint.place(x, y) for x, y in points]
        for pen, fill in zip(self.pens, (self._colour(part, tone), PART[part]), strict=True):
            pen.polygon(pixels, fill=fill)

    def trapezoid(
        self,
        x: float,
        top: float,
        upper: float,
        bottom: float,
        lower: float,
        part: str,
        tone: Tone = 1.0,
    ) -> None:
        """Around ``x``, from height ``top`` with half width ``upper`` to ``bottom`` with half width
        ``lower``."""
        self.polygon(
            [(x - upper, top), (x + upper, top), (x + lower, bottom), (x - lower, bottom)],
            part,
            tone,
        )

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        part: str,
        tone: Tone = 1.0,
        start: float = 0,
    ) -> None:
        """``start`` 180 draws the upper half."""
        middle_x, middle_y = self.viewpoint.place(x, y)
        wide, tall = rx * self.height, ry * self.height
        box = [(middle_x - wide, middle_y - tall), (middle_x + wide, middle_y + tall)]
        for pen, fill in zip(self.pens, (self._colour(part, tone), PART[part]), strict=True):
            pen.pieslice(box, start, 360, fill=fill)

    def limb(
        self, joints: Points, widths: float | tuple[float, ...], part: str, tone: Tone = 1.0
    ) -> None:
        """A chain of segments with round joints, of one width or tapering."""
        widths = widths if isinstance(widths, tuple) else (widths,) * len(joints)
        for (x0, y0), (x1, y1), w0, w1 in zip(joints, joints[1:], widths, widths[1:], strict=False):
            length = max(np.hypot(x1 - x0, y1 - y0), 1e-6)
            nx, ny = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
            self.polygon(
                [
                    (x0 + nx * w0, y0 + ny * w0),
                    (x1 + nx * w1, y1 + ny * w1),
                    (x1 - nx * w1, y1 - ny * w1),
                    (x0 - nx * w0, y0 - ny * w0),
                ],
                part,
                tone,
            )
            self.ellipse(x1, y1, w1 / 2, w1 / 2, part, tone)
        self.ellipse(*joints[0], widths[0] / 2, widths[0] / 2, part, tone)


def _strokes(*rows: tuple[Any, ...]) -> None:
    """Draw, in order, those rows (condition, shape, its arguments ...) whose condition holds."""
    for wanted, shape, *arguments in rows:
        if wanted:
            shape(*arguments)


class Figure(Canvas):
    """One identity on its canvas. ``facing`` is 0 for front and back, +1 / -1 for a walk to the
    right / left."""

    def __init__(
        self,
        background: Image.Image,
        viewpoint: Viewpoint,
        person: Identity,
        view: str,
        rng: np.random.Generator,
        palette_shift: float,
        head: float,
        raise_arm: float,
        stride: tuple[float, float],
        cloth_colours: dict[str, Colour],
    ) -> None:
        super().__init__(background, viewpoint)
        self.cloth_colours = cloth_colours
        self.person, self.front, self.back, self.head = (
            person,
            view == "front",
            view == "back",
            head,
        )
        self.facing = facing = {"left": -1, "right": 1}.get(view, 0)
        self.sides = (facing,) if facing else (-1, 1)
        self.stride = float(rng.uniform(*stride)) * (1 if rng.random() < 0.5 else -1)
        self.raised = rng.random() < raise_arm
        man, girth = (
            person.gender == "man",
            {"slim": 0.88, "average": 1.0, "heavy": 1.2}[person.build],
        )
        self.shoulder = (0.112 if man else 0.098) * girth * (0.62 if facing else 1)
        self.hip = (0.084 if man else 0.092) * girth * (0.72 if facing else 1)
        clothes = ("upper", "inner", "lower", "shoes", "bag", "headwear", "scarf", "umbrella")
        colours = {
            "skin": SKIN[person.skin],
            "hair": HAIR_COLOURS[person.hair_colour],
            **{part: cloth_colours.get(person.colour(part), (0, 0, 0)) for part in clothes},
        }
        for part, rgb in colours.items():
            natural = part in ("skin", "hair")  # whose colours vary less than cloth's
            shift = rng.normal(0, 0.4 * palette_shift if natural else palette_shift, 3)
            self.palette[part] = to_colour(rgb + shift)

    def draw(self) -> None:
        bag, front, back, shoulder = self.person.bag, self.front, self.back, self.shoulder
        straps = _mirrored(
            [(shoulder * 0.55, 0.83), (shoulder * 0.62, 0.73), (shoulder * 0.9, 0.64)]
        )
        _strokes(
            (bag == "backpack" and not back, self._backpack),
            (
                self.person.hair == "long" and not back,
                self.trapezoid,
                -0.02 * self.facing,
                0.93,
                0.055 * self.head,
                0.77,
                0.066 * self.head,
                "hair",
                0.85,
            ),
            (True, self._legs),
            (bag == "handbag" and back, self._bag),
            (True, self._torso),
            (True, self._arms),
            *(
                (bag == "backpack" and front, self.limb, strap, (0.02, 0.02, 0.016), "bag", 0.85)
                for strap in straps
            ),
            (bag == "backpack" and back, self._backpack),
            (bag == "shoulder bag" or (bag == "handbag" and not back), self._bag),
            (True, self._head),
            (self.person.umbrella_colour != "none", self._umbrella),
        )

    def _legs(self) -> None:
        kind, facing, swing = (
            self.person.lower,
            self.facing,
            (0.085 if self.facing else 0.012) * self.stride,
        )
        width = {"leggings": 0.062, "jeans": 0.076}.get(kind, 0.086) * (
            1.12 if self.person.build == "heavy" else 1
        )
        for side in (-1, 1):
            x, lift = (
                side * self.hip * (0.15 if facing else 0.5),
                0.018 * max(0.0, side * self.stride),
            )
            hip, knee = (x, 0.49), (x + side * swing * 0.7 + 0.012 * facing, 0.27)
            ankle = (x + side * swing * 1.5 + (0 if facing else side * 0.006), 0.05 + lift)
            tone = 0.82 if facing and side < 0 else 1.0
            self.limb([hip, knee, ankle], (0.07, 0.052, 0.036), "skin", tone)
            self._shoe(*ankle, tone)
            if kind == "shorts":
                self.limb([hip, (knee[0] * 0.95, 0.30)], (0.095, 0.092), "lower", tone)
            elif kind not in ("skirt", "none"):
                self.limb(
                    [hip, knee, (ankle[0], ankle[1] + 0.012)],
                    (width * 1.1, width * 0.88, width * 0.62),
                    "lower",
                    tone,
                )
        if kind == "skirt":
            self.trapezoid(0, 0.53, self.hip, 0.30, self.hip * 1.45, "lower")
        elif kind != "none":
            self.trapezoid(0, 0.54, self.hip, 0.46, self.hip * 0.98, "lower")

    def _shoe(self, x: float, y: float, tone: float) -> None:
        kind, toe, reach = self.person.shoes, 0.05 * self.facing, 0.034 if self.facing else 0.03
        middle = x + toe * 0.5
        sole = (238, 238, 236) if self.person.shoe_colour != "white" else (150, 150, 155)
        _strokes(
            (kind == "boots", self.limb, [(x, y + 0.075), (x, y)], (0.056, 0.05), "shoes", tone),
            (True, self.ellipse, middle, y - 0.022, reach + abs(toe) * 0.4, 0.022, "shoes", tone),
            (
                kind == "sneakers",
                self.limb,
                [(middle - reach, y - 0.038), (middle + reach, y - 0.038)],
                0.01,
                "shoes",
                sole,
            ),
            (kind == "sandals", self.ellipse, middle, y - 0.012, reach * 0.6, 0.008, "skin", tone),
        )

    def _torso(self) -> None:
        person, kind, front, shoulder, hip = (
            self.person,
            self.person.upper,
            self.front,
            self.shoulder,
            self.hip,
        )
        (hem, flare, _), collar = _CUTS[kind], kind in ("shirt", "coat", "dress")
        left, right = _mirrored(
            [
                (shoulder * 0.5, 0.835),
                (shoulder, 0.80),
                (shoulder * 0.93, 0.70),
                (hip * 0.98, 0.58),
                (hip * flare, hem),
            ]
        )
        is_open, logo, scarf = (
            kind in ("jacket", "coat"),
            person.pattern == "logo",
            person.scarf_colour != "none",
        )
        _strokes(
            (True, self.limb, [(0, 0.80), (0, 0.87)], (0.055, 0.05), "skin", 0.9),
            (True, self.polygon, right + left[::-1], "upper"),
            (
                is_open and front,
                self.trapezoid,
                0,
                0.83,
                0.034,
                max(hem, 0.47),
                0.034 * 0.8,
                "inner",
            ),
            *(
                (is_open and front, self.polygon, lapel, "upper", 0.8)
                for lapel in _mirrored([(0.034, 0.835), (0.034 + 0.028, 0.80), (0.034, 0.70)])
            ),
            (
                kind == "hoodie" and front,
                self.trapezoid,
                0,
                0.56,
                0.045,
                0.49,
                0.062,
                "upper",
                0.84,
            ),
            (
                kind == "hoodie" and not front,
                self.ellipse,
                -0.03 * self.facing,
                0.825,
                0.062,
                0.036,
                "upper",
                0.82,
            ),
            (kind == "shirt" and front, self.trapezoid, 0, 0.83, 0.004, hem, 0.004, "upper", 0.7),
            *(
                (kind == "shirt" and front, self.polygon, tip, "upper", 1.18)
                for tip in _mirrored([(0, 0.80), (0.04, 0.845), (0.045, 0.81)])
            ),
            (
                logo and front,
                self.ellipse,
                0,
                0.70,
                0.042,
                0.042,
                "upper",
                self.cloth_colours[person.pattern_colour],
            ),
            (logo and front, self.ellipse, 0, 0.70, 0.02, 0.02, "upper"),
            (collar and self.back, self.trapezoid, 0, 0.845, 0.03, 0.825, 0.035, "upper", 0.8),
            (scarf, self.ellipse, 0, 0.845, 0.052 if self.facing else 0.062, 0.025, "scarf"),
            (
                scarf and front,
                self.polygon,
                [(0.005, 0.84), (0.045, 0.84), (0.05, 0.68), (0.015, 0.68)],
                "scarf",
                0.9,
            ),
        )

    def _arms(self) -> None:
        facing, shoulder, sleeve = self.facing, self.shoulder, _CUTS[self.person.upper][2]
        for side in self.sides:
            lifted = self.raised or (self.person.umbrella_colour != "none" and (facing or side > 0))
            joints = [(0.0 if facing else side * shoulder * 0.92, 0.785)]
            if facing and lifted:
                joints += [(0.05 * facing, 0.66), (0.10 * facing, 0.78)]
            elif facing:
                swing = -0.10 * self.stride
                joints += [(swing * 0.6, 0.64), (swing + 0.03 * facing, 0.49)]
            elif lifted:
                joints += [(side * (shoulder + 0.035), 0.67), (side * shoulder, 0.78)]
            else:
                swing = 0.012 * self.stride * side
                joints += [
                    (side * (shoulder + 0.022), 0.64),
                    (side * (shoulder + 0.02) + swing, 0.49),
                ]
            self.limb(joints, (0.048, 0.04, 0.034), "skin")
            start, elbow, wrist = joints
            if sleeve == _SHORT:
                self.limb(
                    [start, (0.45 * start[0] + 0.55 * elbow[0], 0.45 * start[1] + 0.55 * elbow[1])],
                    sleeve,
                    "upper",
                    0.9,
                )
            elif sleeve:
                cuff = (wrist[0] * 0.94 + elbow[0] * 0.06, wrist[1] + (-0.02 if lifted else 0.02))
                self.limb([start, elbow, cuff], sleeve, "upper", 0.9)

    def _backpack(self) -> None:
        facing, front = self.facing, self.front
        x, half = (-facing * (self.shoulder + 0.028), 0.05) if facing else (0.0, 0.078)
        _strokes(
            *(
                (front, self.ellipse, side * self.shoulder * 0.72, 0.72, 0.05, 0.10, "bag", 0.75)
                for side in (-1, 1)
            ),
            (not front, self.ellipse, x, 0.78, half, 0.035, "bag"),
            (not front, self.trapezoid, x, 0.78, half, 0.585, half * 1.08, "bag"),
            (not front, self.ellipse, x, 0.585, half * 1.08, 0.02, "bag"),
            (
                facing,
                self.limb,
                [(0.02 * facing, 0.825), (0.03 * facing, 0.70), (x, 0.62)],
                0.018,
                "bag",
                0.7,
            ),
            (self.back, self.trapezoid, x, 0.67, half * 0.7, 0.60, half * 0.7, "bag", 0.8),
        )

    def _bag(self) -> None:
        side = -1 if self.front else 1
        if self.person.bag == "shoulder bag":
            x = 0.0 if self.facing else side * (self.hip + 0.03)
            start = (0.0, 0.82) if self.facing else (-side * self.shoulder * 0.6, 0.83)
            self.limb([start, (x, 0.56)], 0.016, "bag", 0.75)
            self.trapezoid(x, 0.57, 0.055, 0.465, 0.06, "bag")
            self.trapezoid(x, 0.57, 0.055, 0.535, 0.05, "bag", 0.82)
        else:
            x = (
                -0.10 * self.stride + 0.03 * self.facing
                if self.facing
                else side * (self.shoulder + 0.022)
            )
            self.limb([(x - 0.03, 0.40), (x, 0.475), (x + 0.03, 0.40)], 0.012, "bag", 0.7)
            self.trapezoid(x, 0.41, 0.045, 0.315, 0.058, "bag")

    def _umbrella(self) -> None:
        x = 0.10 * self.facing if self.facing else self.shoulder
        self.limb([(x, 0.76), (x * 0.6, 1.10)], 0.01, "umbrella", (70, 70, 74))
        self.ellipse(x * 0.5, 1.02, 0.24, 0.15, "umbrella", start=180)
        for k in (-1, 0, 1):
            self.ellipse(x * 0.5 + 0.16 * k, 1.02, 0.08, 0.02, "umbrella", 0.75)

    def _head(self) -> None:
        front, facing, scale, eyewear = self.front, self.facing, self.head, self.person.eyewear
        rx, ry = 0.050 * scale, 0.064 * scale
        y = 0.862 + ry
        frame = (18, 18, 22) if eyewear == "sunglasses" else (60, 60, 66)
        glasses = eyewear != "none" and not self.back
        lenses = [side * rx * (0.62 if facing else 0.45) for side in self.sides]
        _strokes(
            (True, self.ellipse, 0, y, rx, ry, "skin"),
            (facing, self.ellipse, rx * 0.95 * facing, y - 0.008, 0.012, 0.011, "skin"),  # the nose
            *(
                (front, self.ellipse, ear, y - 0.004, 0.010, 0.016, "skin", 0.9)
                for ear in (-rx, rx)
            ),
            *(
                (front, self.ellipse, eye * 0.42, y - 0.002, 0.0075, 0.006, "skin", (40, 34, 32))
                for eye in (-rx, rx)
            ),
            (front, self.ellipse, 0, y - ry * 0.55, rx * 0.32, 0.005, "skin", 0.7),
            (self.person.hair != "bald", self._hair, y, rx, ry),
            *(
                (glasses, self.ellipse, x, y, 0.020 * scale, 0.014 * scale, "eyewear", frame)
                for x in lenses
            ),
            *(
                (
                    glasses and eyewear == "glasses",
                    self.ellipse,
                    x,
                    y,
                    0.013 * scale,
                    0.008 * scale,
                    "eyewear",
                    (208, 222, 232),
                )
                for x in lenses
            ),
            (
                glasses,
                self.limb,
                [(-rx * 0.9, y + 0.002), (rx * 0.9, y + 0.002)],
                0.005,
                "eyewear",
                frame,
            ),
            (self.person.headwear != "none", self._headwear, y, rx, ry),
        )

    def _hair(self, y: float, rx: float, ry: float) -> None:
        front, back, facing, behind, style = (
            self.front,
            self.back,
            self.facing,
            -self.facing,
            self.person.hair,
        )
        tail, long = behind * rx * 1.25, style == "long"
        _strokes(
            (back, self.ellipse, 0, y + 0.004, rx * 1.1, ry * 1.04, "hair"),
            (back and long, self.trapezoid, 0, y, rx * 1.1, 0.74, rx * 1.3, "hair"),
            (front, self.ellipse, 0, y + 0.008, rx * 1.12, ry * 1.05, "hair", 1.0, 180),
            (front, self.ellipse, rx * 0.3, y + ry * 0.42, rx * 0.85, ry * 0.22, "hair"),
            *(
                (front and long, self.polygon, strand, "hair")
                for strand in _mirrored(
                    [
                        (rx * 0.82, y + 0.02),
                        (rx * 1.16, y + 0.02),
                        (rx * 1.36, 0.77),
                        (rx * 0.86, 0.77),
                    ]
                )
            ),
            (
                facing,
                self.ellipse,
                behind * rx * 0.16,
                y + 0.012,
                rx * 1.08,
                ry * 0.98,
                "hair",
                1.0,
                180,
            ),
            (facing, self.ellipse, behind * rx * 0.52, y, rx * 0.66, ry * 0.88, "hair"),
            (
                facing and long,
                self.polygon,
                [
                    (behind * rx * 0.1, y),
                    (behind * rx * 1.15, y),
                    (behind * rx * 1.5, 0.75),
                    (behind * rx * 0.3, 0.77),
                ],
                "hair",
            ),
            (
                style == "ponytail" and not front,
                self.limb,
                [(tail, y + 0.02), (tail * 1.25, y - 0.05), (tail * 1.2, y - 0.11)],
                (0.03, 0.04, 0.018),
                "hair",
                0.9,
            ),
            (
                style == "bun",
                self.ellipse,
                behind * rx,
                y + ry * (0.75 if facing else 1.05),
                0.03,
                0.027,
                "hair",
                0.88,
            ),
        )

    def _headwear(self, y: float, rx: float, ry: float) -> None:
        kind, facing, rim, peak = self.person.headwear, self.facing, y + ry * 0.30, y + ry * 0.34
        _strokes(
            (True, self.ellipse, 0, rim, rx * 1.16, ry * 0.86, "headwear", 1.0, 180),
            (
                kind == "beanie",
                self.limb,
                [(-rx * 1.05, rim), (rx * 1.05, rim)],
                0.026,
                "headwear",
                0.8,
            ),
            (kind == "hat", self.ellipse, 0, y + ry * 0.32, rx * 2.0, 0.014, "headwear", 0.85),
            (kind == "cap" and self.front, self.ellipse, 0, peak, rx, 0.014, "headwear", 0.75),
            (
                kind == "cap" and facing,
                self.ellipse,
                facing * rx * 1.2,
                peak,
                rx * 0.8,
                0.010,
                "headwear",
                0.75,
            ),
        )
