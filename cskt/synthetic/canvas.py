"""Where a person is painted: colour and part label with the same strokes, seen from a viewpoint.

Everything is given in figure units: x right of the person's middle, y above the ground, and 1 is
the height of a body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from cskt.synthetic.identities import Colour
from cskt.synthetic.tables import table

PARTS: tuple[str, ...] = table("drawing")["parts"]
PART = {name: index for index, name in enumerate(PARTS)}

Point = tuple[float, float]
Points = list[Point]
Edge = tuple[float, float]  # a horizontal one: its height and half its width
Tone = float | Colour  # a factor on the part's own colour, or another colour


def to_colour(rgb: np.ndarray) -> Colour:
    """Three channels cut to what a pixel holds."""
    red, green, blue = np.clip(rgb, 0, 255)
    return int(red), int(green), int(blue)


def mirrored(points: Points) -> list[Points]:
    """The points on the picture's left side, and on its right."""
    left = [(-x, y) for x, y in points]
    return [left, points]


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

    def place(self, x: float, y: float) -> Point:
        """The pixel of a point in figure units."""
        seen_x = x * (1 + self.pitch * (y - 0.5))
        seen_y = y - self.pitch * y * (1 - y)
        up = seen_y - 0.5
        cosine = math.cos(math.radians(self.roll))
        sine = math.sin(math.radians(self.roll))
        turned_x = seen_x * cosine + up * sine
        turned_y = up * cosine - seen_x * sine + 0.5
        pixel_x = self.centre + turned_x * self.height
        pixel_y = self.base - turned_y * self.height
        return pixel_x, pixel_y


class Canvas:
    """A picture (``colour``) and its label map (``label``); a stroke paints both.

    ``palette`` holds each part's own colour, which the ``tone`` of a stroke lightens, darkens or
    replaces.
    """

    def __init__(
        self, background: Image.Image, viewpoint: Viewpoint, palette: dict[str, Colour]
    ) -> None:
        self.colour = background
        self.label = Image.new("L", background.size, 0)
        self.viewpoint = viewpoint
        self.palette = palette
        self._colour_pen = ImageDraw.Draw(self.colour)
        self._label_pen = ImageDraw.Draw(self.label)

    def polygon(self, part: str, points: Points, tone: Tone = 1.0) -> None:
        """The area between ``points``."""
        pixels = [self.viewpoint.place(x, y) for x, y in points]
        self._colour_pen.polygon(pixels, fill=self._toned(part, tone))
        self._label_pen.polygon(pixels, fill=PART[part])

    def trapezoid(
        self,
        part: str,
        *,
        x: float = 0.0,
        top: Edge,
        bottom: Edge,
        tone: Tone = 1.0,
    ) -> None:
        """Around ``x``, between two horizontal edges: each its height and half its width."""
        top_y, top_half = top
        bottom_y, bottom_half = bottom
        corners = [
            (x - top_half, top_y),
            (x + top_half, top_y),
            (x + bottom_half, bottom_y),
            (x - bottom_half, bottom_y),
        ]
        self.polygon(part, corners, tone)

    def ellipse(
        self,
        part: str,
        *,
        x: float = 0.0,
        y: float,
        rx: float,
        ry: float,
        tone: Tone = 1.0,
        upper_half: bool = False,
    ) -> None:
        """Around (x, y), upright in the picture whatever the camera's tilt; all of it, or
        the upper half."""
        start = 180 if upper_half else 0
        middle_x, middle_y = self.viewpoint.place(x, y)
        wide = rx * self.viewpoint.height
        tall = ry * self.viewpoint.height
        top_left = (middle_x - wide, middle_y - tall)
        bottom_right = (middle_x + wide, middle_y + tall)
        box = [top_left, bottom_right]
        self._colour_pen.pieslice(box, start, 360, fill=self._toned(part, tone))
        self._label_pen.pieslice(box, start, 360, fill=PART[part])

    def limb(
        self, part: str, joints: Points, widths: float | tuple[float, ...], tone: Tone = 1.0
    ) -> None:
        """A chain of segments with round joints: ``widths`` is one width, or one for each joint."""
        if isinstance(widths, float):
            widths = (widths,) * len(joints)
        for index in range(1, len(joints)):
            start, end = joints[index - 1], joints[index]
            outline = _segment(start, end, widths[index - 1], widths[index])
            self.polygon(part, outline, tone)
            self._joint(part, end, widths[index], tone)
        self._joint(part, joints[0], widths[0], tone)

    def _joint(self, part: str, point: Point, width: float, tone: Tone) -> None:
        x, y = point
        self.ellipse(part, x=x, y=y, rx=width / 2, ry=width / 2, tone=tone)

    def _toned(self, part: str, tone: Tone) -> Colour:
        if isinstance(tone, tuple):
            return tone
        return to_colour(np.multiply(self.palette[part], tone))


def _segment(start: Point, end: Point, start_width: float, end_width: float) -> Points:
    """The corners of a straight piece that is ``start_width`` wide at one end and ``end_width`` at
    the other."""
    x0, y0 = start
    x1, y1 = end
    length = max(np.hypot(x1 - x0, y1 - y0), 1e-6)
    normal_x = -(y1 - y0) / length / 2
    normal_y = (x1 - x0) / length / 2
    return [
        (x0 + normal_x * start_width, y0 + normal_y * start_width),
        (x1 + normal_x * end_width, y1 + normal_y * end_width),
        (x1 - normal_x * end_width, y1 - normal_y * end_width),
        (x0 - normal_x * start_width, y0 - normal_y * start_width),
    ]
