"""What surrounds a person: the street or the page behind them, and what may stand before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cskt.synthetic.canvas import Canvas, to_colour
from cskt.synthetic.identities import Colour
from cskt.synthetic.tables import table

_PLACES = 6  # the seed from which, with its number, each camera's place follows
_DRAWING = table("drawing")
_BARK = (104, 84, 66)
_CAR_WINDOW = (116, 136, 150)
_TYRE = (40, 40, 44)


def _pick(colours: Sequence[Colour], rng: np.random.Generator) -> Colour:
    index = int(rng.integers(len(colours)))
    return colours[index]


def plain_page(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """The illustrator's page: a soft ramp between two pale colours."""
    top = pale_colour(rng)
    bottom = pale_colour(rng)
    ramp = np.linspace(0, 1, height)[:, None, None]
    rows = top * (1 - ramp) + bottom * ramp
    page = np.broadcast_to(rows, (height, width, 3))
    return Image.fromarray(page.astype(np.uint8))


def pale_colour(rng: np.random.Generator) -> np.ndarray:
    """Three channels of an illustrator's ground."""
    return np.clip(rng.normal(205, 34, 3), 60, 255)


def street(camera: int, rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A street, drawn at a quarter of its size because it is out of focus: its place follows from
    the camera, the rest from the shot's ``rng``."""
    image = _Street(camera, rng, height // 4, width // 4).draw()
    blurred = image.filter(ImageFilter.GaussianBlur(0.6))
    return blurred.resize((width, height), Image.Resampling.BILINEAR)


class _Street:
    """A street in focus: ``place`` draws what a camera sees every day, ``rng`` what is new."""

    def __init__(self, camera: int, rng: np.random.Generator, height: int, width: int) -> None:
        self.place = np.random.default_rng((_PLACES, camera))
        self.rng = rng
        self.height = height
        self.width = width
        self.wall = self._painted("walls")
        self.ground = self._painted("grounds")
        share = self.place.uniform(0.45, 0.66)
        share += rng.uniform(-0.05, 0.05)
        self.horizon = height * share  # where the walls end
        self.shift = width * rng.uniform(-0.5, 0.5)
        self.image = Image.new("RGB", (width, height), to_colour(self.wall))
        self.pen = ImageDraw.Draw(self.image)

    def _painted(self, table_name: str) -> np.ndarray:
        """A colour of a table, and a little beside it."""
        colour = _pick(_DRAWING[table_name], self.place)
        return colour + self.place.normal(0, 8, 3)

    def _fill(self, top: float, bottom: float, colour: np.ndarray) -> None:
        """A band over the whole width."""
        self.pen.rectangle([0, top, self.width, bottom], fill=to_colour(colour))

    def draw(self) -> Image.Image:
        """All of it, from the far to the near."""
        self._draw_windows()
        self._fill(self.horizon * 0.96, self.horizon, self.wall * 0.72)  # the plinth
        kerb = self._draw_pavement()
        self._draw_slabs(kerb)
        if self.rng.random() < 0.45:
            self._draw_tree(kerb)
        if self.rng.random() < 0.4:
            self._draw_parked_car(kerb)
        return self.image

    def _draw_windows(self) -> None:
        """Three storeys."""
        place = self.place
        glass = np.array((120, 142, 160)) + place.normal(0, 16, 3)
        step = self.width * place.uniform(0.32, 0.55)
        wide = step * place.uniform(0.45, 0.7)
        storey = self.horizon * place.uniform(0.3, 0.42)
        frame = to_colour(self.wall * 0.82)
        thickness = max(1, self.width // 60)
        for row in range(3):
            top = row * storey + 0.06 * self.horizon
            bottom = top + 0.62 * storey
            for column in range(-3, 7):
                left = self.shift + column * step
                tone = to_colour(glass * place.uniform(0.85, 1.15))
                box = [left, top, left + wide, bottom]
                self.pen.rectangle(box, fill=tone, outline=frame, width=thickness)

    def _draw_pavement(self) -> float:
        """The road, its kerb and the pavement before it; returns where the kerb begins."""
        self._fill(self.horizon, self.height, self.ground)
        share = self.place.uniform(0.15, 0.4)
        kerb = self.horizon + (self.height - self.horizon) * share
        kerb_end = kerb + 0.012 * self.height
        self._fill(kerb, kerb_end, self.ground * 1.14)
        shade = self.place.uniform(0.85, 1.0)
        self._fill(kerb_end, self.height, self.ground * shade)
        return kerb

    def _draw_slabs(self, kerb: float) -> None:
        """The pavement's joints, towards a vanishing point."""
        width = self.width
        middle = width / 2 + self.shift * 0.3
        tone = to_colour(self.ground * 0.86)
        thickness = max(1, self.height // 200)
        for slant in np.linspace(-1.6, 1.6, 7):
            far = (middle + slant * width * 0.3, kerb)
            near = (middle + slant * width * 1.2, self.height)
            self.pen.line([far, near], fill=tone, width=thickness)

    def _draw_tree(self, kerb: float) -> None:
        """A trunk that stands at the kerb, and seven balls of leaves."""
        rng = self.rng
        width = self.width
        height = self.height
        middle = width * rng.uniform(-0.05, 1.05)
        leaf = np.array(_pick(_DRAWING["leaves"], rng))
        half = 0.025 * width
        trunk = [middle - half, 0.2 * height, middle + half, kerb]
        self.pen.rectangle(trunk, fill=_BARK)
        for _ in range(7):
            x = middle + rng.uniform(-0.2, 0.2) * width
            y = rng.uniform(0.0, 0.3) * height
            radius = rng.uniform(0.1, 0.2) * width
            tone = to_colour(leaf * rng.uniform(0.85, 1.15))
            box = [x - radius, y - radius, x + radius, y + radius]
            self.pen.ellipse(box, fill=tone)

    def _draw_parked_car(self, kerb: float) -> None:
        """Body, cabin and two wheels, seen from the side at the kerb."""
        rear = self.width * self.rng.uniform(-0.6, 0.9)
        paint = _pick(_DRAWING["cars"], self.rng)
        long = 0.8 * self.width
        tall = 0.085 * self.height
        bonnet = kerb - tall
        roof = kerb - 1.8 * tall
        cabin = [
            (rear + 0.2 * long, bonnet),
            (rear + 0.32 * long, roof),
            (rear + 0.68 * long, roof),
            (rear + 0.82 * long, bonnet),
        ]
        self.pen.polygon(cabin, fill=_CAR_WINDOW)
        body = [rear, kerb - 1.1 * tall, rear + long, kerb - 0.1 * tall]
        self.pen.rounded_rectangle(body, tall * 0.4, fill=paint)
        radius = 0.35 * tall
        top = kerb - 0.55 * tall
        for share in (0.2, 0.8):
            axle = rear + share * long
            wheel = [axle - radius, top, axle + radius, top + 2 * radius]
            self.pen.ellipse(wheel, fill=_TYRE)


def draw_occluder(canvas: Canvas, rng: np.random.Generator) -> None:
    """Something between camera and person: a pole, a car's bonnet or a hedge."""
    kind = rng.integers(3)
    if kind == 0:
        _draw_pole(canvas, rng)
    elif kind == 1:
        _draw_bank(canvas, rng, _pick(_DRAWING["cars"], rng))
    else:
        top = _draw_bank(canvas, rng, _pick(_DRAWING["leaves"], rng))
        for x in np.linspace(-0.5, 0.5, 12):
            tone = float(rng.uniform(0.85, 1.15))
            canvas.ellipse("occluder", x=float(x), y=top, rx=0.06, ry=0.04, tone=tone)


def _draw_pole(canvas: Canvas, rng: np.random.Generator) -> None:
    grey = rng.uniform(90, 160)
    colour = grey + rng.normal(0, 8, 3)
    canvas.palette["occluder"] = to_colour(colour)
    x = float(rng.uniform(-0.16, 0.16))
    canvas.trapezoid("occluder", x=x, top=(1.6, 0.022), bottom=(-0.5, 0.022))


def _draw_bank(canvas: Canvas, rng: np.random.Generator, colour: Colour) -> float:
    """Everything below a slanting edge; returns that edge's height in the middle."""
    canvas.palette["occluder"] = colour
    top = float(rng.uniform(0.14, 0.36))
    tilt = float(rng.uniform(-0.06, 0.06))
    outline = [
        (-0.9, top - tilt),
        (0.9, top + tilt),
        (0.9, -0.5),
        (-0.9, -0.5),
    ]
    canvas.polygon("occluder", outline)
    return top
