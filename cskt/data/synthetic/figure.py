"""The drawn person: shapes of one identity on a colour canvas and a label canvas at once, in painter's order."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .identities import COLOURS, HAIR_COLOURS, SKIN, Identity

PARTS = ("background", "skin", "hair", "upper", "inner", "lower", "shoes", "bag", "headwear", "eyewear", "scarf",
         "umbrella", "occluder")
PART = {name: index for index, name in enumerate(PARTS)}

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


class Canvas:
    """Paints colour and part label with the same strokes, in figure units: x right, y up, 1 = body height."""

    def __init__(self, background: Image.Image, centre: float, base: float, height: float) -> None:
        self.colour, self.label = background, Image.new("L", background.size, 0)
        self.pens = ImageDraw.Draw(self.colour), ImageDraw.Draw(self.label)
        self.centre, self.base, self.height = centre, base, height

    def _pixels(self, points: Points) -> Points:
        return [(self.centre + x * self.height, self.base - y * self.height) for x, y in points]

    def polygon(self, points: Points, colour: Colour, part: str) -> None:
        pixels = self._pixels(points)
        self.pens[0].polygon(pixels, fill=colour)
        self.pens[1].polygon(pixels, fill=PART[part])

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, part: str,
                span: tuple[float, float] = (0, 360)) -> None:
        box = self._pixels([(x - rx, y + ry), (x + rx, y - ry)])
        self.pens[0].pieslice(box, *span, fill=colour)
        self.pens[1].pieslice(box, *span, fill=PART[part])

    def limb(self, joints: Points, widths: list[float], colour: Colour, part: str) -> None:
        """A tapering chain of segments with round joints."""
        for (x0, y0), (x1, y1), w0, w1 in zip(joints, joints[1:], widths, widths[1:], strict=False):
            length = max(np.hypot(x1 - x0, y1 - y0), 1e-6)
            nx, ny = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
            self.polygon([(x0 + nx * w0, y0 + ny * w0), (x1 + nx * w1, y1 + ny * w1),
                          (x1 - nx * w1, y1 - ny * w1), (x0 - nx * w0, y0 - ny * w0)], colour, part)
            self.ellipse(x1, y1, w1 / 2, w1 / 2, colour, part)
        self.ellipse(*joints[0], widths[0] / 2, widths[0] / 2, colour, part)


def shade(colour: Colour, factor: float) -> Colour:
    return tuple(int(min(255, max(0, c * factor))) for c in colour)  # type: ignore[return-value]


def _mirror(points: Points, side: int) -> Points:
    return [(x * side, y) for x, y in points]


class Figure:
    """Draws one identity. ``facing`` is 0 for front and back, +1 / -1 for a walk to the right / left."""

    def __init__(self, canvas: Canvas, person: Identity, view: str, rng: np.random.Generator,
                 palette_shift: float = 0.0, head: float = 1.0, raise_arm: float = 0.0) -> None:
        self.canvas, self.person, self.view = canvas, person, view
        self.facing = {"left": -1, "right": 1}.get(view, 0)
        self.stride = float(rng.uniform(0.2, 1.0)) * (1 if rng.random() < 0.5 else -1)
        self.raised = rng.random() < raise_arm
        girth = {"slim": 0.88, "average": 1.0, "heavy": 1.2}[person.build]
        self.shoulder = (0.112 if person.gender == "man" else 0.098) * girth * (0.62 if self.facing else 1)
        self.hip = (0.084 if person.gender == "man" else 0.092) * girth * (0.72 if self.facing else 1)
        self.head = head

        def paint(rgb: Colour) -> Colour:
            return tuple(int(np.clip(c + rng.normal(0, palette_shift), 0, 255)) for c in rgb)  # type: ignore[return-value]

        self.skin = paint(SKIN[person.skin])
        self.hair = paint(HAIR_COLOURS[person.hair_colour])
        names = ("upper_colour", "inner_colour", "lower_colour", "shoe_colour", "bag_colour", "headwear_colour",
                 "scarf_colour", "umbrella_colour")
        self.paint = {name: paint(COLOURS.get(getattr(person, name), (0, 0, 0))) for name in names}

    def draw(self) -> None:
        if self.person.bag == "backpack" and self.view != "back":
            self._backpack()
        if self.person.hair == "long" and self.view in ("front", "left", "right"):
            self._long_hair()
        self._legs()
        if self.person.bag == "handbag" and self.view == "back":
            self._bag()
        self._torso()
        self._arms()
        if self.person.bag == "backpack":
            self._backpack_straps() if self.view == "front" else None
            self._backpack() if self.view == "back" else None
        elif self.person.bag == "shoulder bag" or (self.person.bag == "handbag" and self.view != "back"):
            self._bag()
        self._head()
        if self.person.umbrella_colour != "none":
            self._umbrella()

    # Lower body ---------------------------------------------------------------------------------------------------
    def _legs(self) -> None:
        person, canvas, lower = self.person, self.canvas, self.paint["lower_colour"]
        spread = 0.085 * self.stride if self.facing else 0.012 * self.stride
        bare = person.lower in ("shorts", "skirt", "none")
        width = {"leggings": 0.062, "jeans": 0.076}.get(person.lower, 0.086) * (1.12 if person.build == "heavy" else 1)
        for side in (-1, 1):
            hip = (side * self.hip * (0.15 if self.facing else 0.5), 0.49)
            lift = 0.018 * max(0.0, side * self.stride)
            knee = (hip[0] + side * spread * 0.7 + (0.012 * self.facing), 0.27)
            ankle = (hip[0] + side * spread * 1.5 + (0 if self.facing else side * 0.006), 0.05 + lift)
            factor = 0.82 if self.facing and side < 0 else 1.0
            canvas.limb([hip, knee, ankle], [0.07, 0.052, 0.036], shade(self.skin, factor), "skin")
            self._shoe(ankle, factor)
            if person.lower == "shorts":
                canvas.limb([hip, (knee[0] * 0.95, 0.30)], [0.095, 0.092], shade(lower, factor), "lower")
            elif not bare:
                taper = [width * 1.1, width * 0.88, width * 0.62]
                canvas.limb([hip, knee, (ankle[0], ankle[1] + 0.012)], taper, shade(lower, factor), "lower")
        if person.lower == "skirt":
            canvas.polygon([(-self.hip, 0.53), (self.hip, 0.53), (self.hip * 1.45, 0.30), (-self.hip * 1.45, 0.30)],
                           lower, "lower")
        elif not bare or person.lower == "shorts":
            canvas.polygon([(-self.hip, 0.54), (self.hip, 0.54), (self.hip * 0.98, 0.46), (-self.hip * 0.98, 0.46)],
                           lower, "lower")

    def _shoe(self, ankle: tuple[float, float], factor: float) -> None:
        colour, (x, y), kind = shade(self.paint["shoe_colour"], factor), ankle, self.person.shoes
        toe = 0.05 * self.facing if self.facing else 0.0
        if kind == "boots":
            self.canvas.limb([(x, y + 0.075), (x, y)], [0.056, 0.05], colour, "shoes")
        reach = 0.034 if self.facing else 0.03
        self.canvas.ellipse(x + toe * 0.5, y - 0.022, reach + abs(toe) * 0.4, 0.022, colour, "shoes")
        if kind == "sneakers":
            sole = (238, 238, 236) if self.person.shoe_colour != "white" else (150, 150, 155)
            self.canvas.limb([(x + toe * 0.5 - reach, y - 0.038), (x + toe * 0.5 + reach, y - 0.038)],
                             [0.01, 0.01], sole, "shoes")
        elif kind == "sandals":
            self.canvas.ellipse(x + toe * 0.5, y - 0.012, reach * 0.6, 0.008, shade(self.skin, factor), "skin")

    # Upper body ---------------------------------------------------------------------------------------------------
    def _outline(self, hem: float, flare: float) -> Points:
        return [(-self.shoulder * 0.5, 0.835), (self.shoulder * 0.5, 0.835), (self.shoulder, 0.80),
                (self.shoulder * 0.93, 0.70), (self.hip * 0.98, 0.58), (self.hip * flare, hem),
                (-self.hip * flare, hem), (-self.hip * 0.98, 0.58), (-self.shoulder * 0.93, 0.70),
                (-self.shoulder, 0.80)]

    def _torso(self) -> None:
        person, canvas, upper = self.person, self.canvas, self.paint["upper_colour"]
        hem, flare = {"coat": (0.31, 1.2), "dress": (0.29, 1.6), "hoodie": (0.46, 1.1), "sweater": (0.47, 1.08),
                      "vest": (0.50, 1.0)}.get(person.upper, (0.47, 1.05))
        canvas.limb([(0, 0.80), (0, 0.87)], [0.055, 0.05], shade(self.skin, 0.9), "skin")
        canvas.polygon(self._outline(hem, flare), upper, "upper")
        if person.upper in ("jacket", "coat") and self.view == "front":
            gap = 0.034
            canvas.polygon([(-gap, 0.83), (gap, 0.83), (gap * 0.8, max(hem, 0.47)), (-gap * 0.8, max(hem, 0.47))],
                           self.paint["inner_colour"], "inner")
            for side in (-1, 1):
                canvas.polygon(_mirror([(gap, 0.835), (gap + 0.028, 0.80), (gap, 0.70)], side), shade(upper, 0.8),
                               "upper")
        if person.upper == "hoodie":
            if self.view == "front":
                canvas.polygon([(-0.045, 0.56), (0.045, 0.56), (0.062, 0.49), (-0.062, 0.49)], shade(upper, 0.84),
                               "upper")
            else:
                canvas.ellipse(-0.03 * self.facing, 0.825, 0.062, 0.036, shade(upper, 0.82), "upper")
        if person.upper == "shirt" and self.view == "front":
            canvas.polygon([(-0.004, 0.83), (0.004, 0.83), (0.004, hem), (-0.004, hem)], shade(upper, 0.7), "upper")
            for side in (-1, 1):
                canvas.polygon(_mirror([(0, 0.80), (0.04, 0.845), (0.045, 0.81)], side), shade(upper, 1.18), "upper")
        if person.pattern == "logo" and self.view == "front":
            self._logo()
        if person.upper in ("shirt", "coat", "dress") and self.view == "back":
            canvas.polygon([(-0.03, 0.845), (0.03, 0.845), (0.035, 0.825), (-0.035, 0.825)], shade(upper, 0.8), "upper")
        if person.scarf_colour != "none":
            colour = self.paint["scarf_colour"]
            canvas.ellipse(0, 0.845, 0.062 if not self.facing else 0.052, 0.025, colour, "scarf")
            if self.view == "front":
                canvas.polygon([(0.005, 0.84), (0.045, 0.84), (0.05, 0.68), (0.015, 0.68)], shade(colour, 0.9), "scarf")

    def _logo(self) -> None:
        canvas, colour = self.canvas, COLOURS[self.person.pattern_colour]
        canvas.ellipse(0, 0.70, 0.042, 0.042, colour, "upper")
        canvas.ellipse(0, 0.70, 0.02, 0.02, self.paint["upper_colour"], "upper")

    def _arms(self) -> None:
        person, canvas, upper = self.person, self.canvas, self.paint["upper_colour"]
        sleeve = {"t-shirt": 0.5, "dress": 0.5, "vest": 0.0}.get(person.upper, 1.0)
        thick = 0.062 if person.upper in ("hoodie", "jacket", "coat", "sweater") else 0.052
        sides = (1,) if self.facing else (-1, 1)
        for side in sides:
            lifted = self.raised or (person.umbrella_colour != "none" and (side > 0))
            if self.facing:
                swing = -0.10 * self.stride
                joints = [(0.0, 0.785), (swing * 0.6, 0.64), (swing + 0.03 * self.facing, 0.49)]
                if lifted:
                    joints = [(0.0, 0.785), (0.05 * self.facing, 0.66), (0.10 * self.facing, 0.78)]
            else:
                swing = 0.012 * self.stride * side
                joints = [(side * self.shoulder * 0.92, 0.785), (side * (self.shoulder + 0.022), 0.64),
                          (side * (self.shoulder + 0.02) + swing, 0.49)]
                if lifted:
                    joints = [joints[0], (side * (self.shoulder + 0.035), 0.67), (side * (self.shoulder + 0.0), 0.78)]
            canvas.limb(joints, [0.048, 0.04, 0.034], self.skin, "skin")
            colour = shade(upper, 0.9)
            if sleeve == 1.0:
                end = joints[2]
                cuff = (end[0] * 0.94 + joints[1][0] * 0.06, end[1] + (0.02 if not lifted else -0.02))
                canvas.limb([joints[0], joints[1], cuff], [thick * 1.1, thick, thick * 0.8], colour, "upper")
            elif sleeve == 0.5:
                middle = tuple(0.45 * a + 0.55 * b for a, b in zip(joints[0], joints[1], strict=True))
                canvas.limb([joints[0], middle], [0.064, 0.062], colour, "upper")

    # Things carried -----------------------------------------------------------------------------------------------
    def _backpack(self) -> None:
        canvas, colour = self.canvas, self.paint["bag_colour"]
        if self.view == "front":
            for side in (-1, 1):
                canvas.ellipse(side * self.shoulder * 0.72, 0.72, 0.05, 0.10, shade(colour, 0.75), "bag")
            return
        x, half = (-self.facing * (self.shoulder + 0.028), 0.05) if self.facing else (0.0, 0.078)
        canvas.ellipse(x, 0.78, half, 0.035, colour, "bag")
        canvas.polygon([(x - half, 0.78), (x + half, 0.78), (x + half * 1.08, 0.585), (x - half * 1.08, 0.585)],
                       colour, "bag")
        canvas.ellipse(x, 0.585, half * 1.08, 0.02, colour, "bag")
        if not self.facing:
            canvas.polygon([(x - half * 0.7, 0.67), (x + half * 0.7, 0.67), (x + half * 0.7, 0.60),
                            (x - half * 0.7, 0.60)], shade(colour, 0.8), "bag")
        else:
            canvas.limb([(0.02 * self.facing, 0.825), (0.03 * self.facing, 0.70), (x, 0.62)], [0.018] * 3,
                        shade(colour, 0.7), "bag")

    def _backpack_straps(self) -> None:
        for side in (-1, 1):
            self.canvas.limb(_mirror([(self.shoulder * 0.55, 0.83), (self.shoulder * 0.62, 0.73),
                                      (self.shoulder * 0.9, 0.64)], side), [0.02, 0.02, 0.016],
                             shade(self.paint["bag_colour"], 0.85), "bag")

    def _bag(self) -> None:
        canvas, colour = self.canvas, self.paint["bag_colour"]
        side = self.facing or (-1 if self.view == "front" else 1)
        if self.person.bag == "shoulder bag":
            x = 0.0 if self.facing else side * (self.hip + 0.03)
            start = (0.0, 0.82) if self.facing else (-side * self.shoulder * 0.6, 0.83)
            canvas.limb([start, (x, 0.56)], [0.016, 0.016], shade(colour, 0.75), "bag")
            canvas.polygon([(x - 0.055, 0.57), (x + 0.055, 0.57), (x + 0.06, 0.465), (x - 0.06, 0.465)], colour, "bag")
            canvas.polygon([(x - 0.055, 0.57), (x + 0.055, 0.57), (x + 0.05, 0.535), (x - 0.05, 0.535)],
                           shade(colour, 0.82), "bag")
        else:
            x = -0.10 * self.stride + 0.03 * self.facing if self.facing else side * (self.shoulder + 0.022)
            canvas.limb([(x - 0.03, 0.40), (x, 0.475), (x + 0.03, 0.40)], [0.012] * 3, shade(colour, 0.7), "bag")
            canvas.polygon([(x - 0.045, 0.41), (x + 0.045, 0.41), (x + 0.058, 0.315), (x - 0.058, 0.315)], colour,
                           "bag")

    def _umbrella(self) -> None:
        canvas, colour = self.canvas, self.paint["umbrella_colour"]
        x = 0.10 * self.facing if self.facing else self.shoulder
        canvas.limb([(x, 0.76), (x * 0.6, 1.10)], [0.01, 0.01], (70, 70, 74), "umbrella")
        canvas.ellipse(x * 0.5, 1.02, 0.24, 0.15, colour, "umbrella", (180, 360))
        for k in (-1, 0, 1):
            canvas.ellipse(x * 0.5 + 0.16 * k, 1.02, 0.08, 0.02, shade(colour, 0.75), "umbrella")

    # Head ---------------------------------------------------------------------------------------------------------
    def _long_hair(self) -> None:
        scale = self.head
        x = -0.02 * self.facing
        self.canvas.polygon([(x - 0.055 * scale, 0.93), (x + 0.055 * scale, 0.93), (x + 0.066 * scale, 0.77),
                             (x - 0.066 * scale, 0.77)], shade(self.hair, 0.85), "hair")

    def _head(self) -> None:
        person, canvas, scale = self.person, self.canvas, self.head
        rx, ry = 0.050 * scale, 0.064 * scale
        y = 0.862 + ry
        bald = person.hair == "bald"
        canvas.ellipse(0, y, rx, ry, self.skin, "skin")
        if self.facing:
            canvas.ellipse(rx * 0.95 * self.facing, y - 0.008, 0.012, 0.011, self.skin, "skin")
        elif self.view == "front":
            for side in (-1, 1):
                canvas.ellipse(side * rx * 1.0, y - 0.004, 0.010, 0.016, shade(self.skin, 0.9), "skin")
                canvas.ellipse(side * rx * 0.42, y - 0.002, 0.0075, 0.006, (40, 34, 32), "skin")
            canvas.ellipse(0, y - ry * 0.55, rx * 0.32, 0.005, shade(self.skin, 0.7), "skin")
        if not bald:
            self._hair(y, rx, ry)
        if person.eyewear != "none" and self.view != "back":
            dark = (18, 18, 22) if person.eyewear == "sunglasses" else (60, 60, 66)
            for side in ((self.facing,) if self.facing else (-1, 1)):
                centre = side * rx * (0.62 if self.facing else 0.45)
                canvas.ellipse(centre, y, 0.020 * scale, 0.014 * scale, dark, "eyewear")
                if person.eyewear == "glasses":
                    canvas.ellipse(centre, y, 0.013 * scale, 0.008 * scale, (208, 222, 232), "eyewear")
            canvas.limb([(-rx * 0.9, y + 0.002), (rx * 0.9, y + 0.002)], [0.005, 0.005], dark, "eyewear")
        if person.headwear != "none":
            self._headwear(y, rx, ry)

    def _hair(self, y: float, rx: float, ry: float) -> None:
        canvas, hair, style = self.canvas, self.hair, self.person.hair
        if self.view == "back":
            canvas.ellipse(0, y + 0.004, rx * 1.1, ry * 1.04, hair, "hair")
            if style == "long":
                canvas.polygon([(-rx * 1.1, y), (rx * 1.1, y), (rx * 1.3, 0.74), (-rx * 1.3, 0.74)], hair, "hair")
        elif self.view == "front":
            canvas.ellipse(0, y + 0.008, rx * 1.12, ry * 1.05, hair, "hair", (180, 360))
            canvas.ellipse(rx * 0.3, y + ry * 0.42, rx * 0.85, ry * 0.22, hair, "hair")
            if style == "long":
                for side in (-1, 1):
                    canvas.polygon(_mirror([(rx * 0.82, y + 0.02), (rx * 1.16, y + 0.02), (rx * 1.36, 0.77),
                                            (rx * 0.86, 0.77)], side), hair, "hair")
        else:
            back = -self.facing
            canvas.ellipse(back * rx * 0.16, y + 0.012, rx * 1.08, ry * 0.98, hair, "hair", (180, 360))
            canvas.ellipse(back * rx * 0.52, y, rx * 0.66, ry * 0.88, hair, "hair")
            if style == "long":
                canvas.polygon([(back * rx * 0.1, y), (back * rx * 1.15, y), (back * rx * 1.5, 0.75),
                                (back * rx * 0.3, 0.77)], hair, "hair")
        if style == "ponytail" and self.view != "front":
            x = -self.facing * rx * 1.25
            canvas.limb([(x, y + 0.02), (x * 1.25, y - 0.05), (x * 1.2, y - 0.11)], [0.03, 0.04, 0.018],
                        shade(hair, 0.9), "hair")
        if style == "bun":
            canvas.ellipse(-self.facing * rx * 1.0, y + ry * (1.05 if not self.facing else 0.75), 0.03, 0.027,
                           shade(hair, 0.88), "hair")

    def _headwear(self, y: float, rx: float, ry: float) -> None:
        canvas, colour, kind = self.canvas, self.paint["headwear_colour"], self.person.headwear
        canvas.ellipse(0, y + ry * 0.30, rx * 1.16, ry * 0.86, colour, "headwear", (180, 360))
        if kind == "beanie":
            canvas.limb([(-rx * 1.05, y + ry * 0.30), (rx * 1.05, y + ry * 0.30)], [0.026, 0.026], shade(colour, 0.8),
                        "headwear")
        elif kind == "hat":
            canvas.ellipse(0, y + ry * 0.32, rx * 2.0, 0.014, shade(colour, 0.85), "headwear")
        elif self.view == "front":
            canvas.ellipse(0, y + ry * 0.34, rx * 1.0, 0.014, shade(colour, 0.75), "headwear")
        elif self.facing:
            canvas.ellipse(self.facing * rx * 1.2, y + ry * 0.34, rx * 0.8, 0.010, shade(colour, 0.75), "headwear")
