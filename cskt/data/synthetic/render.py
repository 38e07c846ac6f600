"""The renderer: an identity seen in a scene, as a picture and a part label per pixel.

Shapes are painted two or three times larger with PIL onto two canvases at once, colour and part
label, in painter's order; so the label map is the exact visible mask of every garment after
self-occlusion, occluders and cropping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .figure import PART, Canvas, Figure, Viewpoint, to_colour
from .identities import Colour, Identity, dyed

HEIGHT, WIDTH = 256, 128  # of a SynthPEDES picture
_BILINEAR = Image.Resampling.BILINEAR
_CLOTH = [
    PART[name] for name in ("upper", "inner", "lower", "bag", "scarf", "headwear", "umbrella")
]
_WALLS: tuple[Colour, ...] = (
    (226, 209, 184),
    (196, 138, 116),
    (178, 192, 200),
    (212, 214, 206),
    (166, 176, 158),
    (206, 186, 196),
    (236, 228, 210),
)
_GROUNDS: tuple[Colour, ...] = ((176, 172, 166), (158, 160, 164), (190, 178, 160), (146, 150, 150))
_LEAVES: tuple[Colour, ...] = ((112, 148, 92), (92, 132, 98), (150, 158, 90))
_CARS: tuple[Colour, ...] = (
    (178, 60, 56),
    (70, 96, 140),
    (224, 224, 222),
    (70, 74, 80),
    (196, 170, 92),
)


@dataclass(frozen=True)
class Style:
    """How a camera network, or an illustrator, sees the world.

    ``height`` is the picture's, in pixels (its width is half of it), painted ``supersample`` times
    larger. Pairs are ranges that every shot draws from: ``light`` (a factor), ``blur`` (a radius in
    pixels of a picture of 128 x 64), ``zoom`` (the person's share of the picture's height),
    ``pitch`` (see :class:`~.figure.Viewpoint`) and ``stride``. ``roll`` (degrees) and ``drift`` (a
    share of the width) are how far a shot may be off to either side. ``noise`` and
    ``palette_shift`` are standard deviations in grey values: of pixels, and of the colour of a
    garment; ``hue`` and ``paleness`` say how cloth is dyed (:func:`~.identities.dyed`).
    """

    height: int = HEIGHT
    supersample: int = 2
    light: tuple[float, float] = (0.94, 1.08)
    tints: tuple[Colour, ...] = ((255, 255, 255),)
    saturation: float = 1.0
    contrast: float = 1.0
    palette_shift: float = 10.0
    hue: float = 0.0
    paleness: float = 0.0
    noise: float = 2.0
    blur: tuple[float, float] = (0.0, 0.3)
    outline: float = 0.25
    folds: float = 0.10
    volume: float = 0.25
    head: float = 1.0
    backdrop: str = "street"
    occlusion: float = 0.15
    crop: float = 0.04
    raise_arm: float = 0.0
    zoom: tuple[float, float] = (0.80, 0.90)
    pitch: tuple[float, float] = (0.0, 0.0)
    roll: float = 0.0
    drift: float = 0.05
    stride: tuple[float, float] = (0.2, 1.0)


@dataclass(frozen=True)
class Scene:
    """One shot: what is fixed neither by the identity nor by the style."""

    view: str
    camera: int
    seed: int


def render(person: Identity, scene: Scene, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Draw one shot.

    Returns:
        image ``(H, W, 3)`` uint8 with H = ``style.height`` and W = H / 2, and labels ``(H, W)``
        uint8, indices into ``figure.PARTS``; what a label shows is what a viewer can see.
        Deterministic in its arguments.
    """
    rng = np.random.default_rng(scene.seed)
    scale = style.supersample
    height, width = style.height * scale, style.height * scale // 2
    viewpoint = _viewpoint(person, style, rng, height, width)
    if style.backdrop == "plain":
        backdrop = _plain_ground(rng, height, width)
    else:
        backdrop = _street(style, scene.camera, rng, height // 4, width // 4).resize(
            (width, height), _BILINEAR
        )
    backdrop = _shadow(backdrop, viewpoint)
    cloth_colours = dyed(style.hue, style.paleness)
    canvas = Figure(
        backdrop,
        viewpoint,
        person,
        scene.view,
        rng,
        style.palette_shift,
        style.head,
        style.raise_arm,
        style.stride,
        cloth_colours,
    )
    canvas.draw()
    if rng.random() < style.occlusion:
        _occlude(canvas, rng)
    labels = np.asarray(canvas.label)
    if person.pattern in ("striped", "checked"):
        pixels = np.array(canvas.colour)
        second = np.array(cloth_colours[person.pattern_colour], dtype=np.uint8)
        _pattern(
            pixels, labels, person.pattern, second, 0.042 * viewpoint.height, float(rng.random())
        )
        canvas.colour = Image.fromarray(pixels)
    small = np.asarray(canvas.colour.reduce(scale), dtype=np.float32)
    labels = labels[scale // 2 :: scale, scale // 2 :: scale].copy()
    return _photograph(small, labels, style, scene.camera, rng), labels


def _viewpoint(
    person: Identity, style: Style, rng: np.random.Generator, height: int, width: int
) -> Viewpoint:
    body = height * rng.uniform(*style.zoom)
    if person.umbrella_colour != "none":
        body *= 0.88
    pitch = rng.uniform(*style.pitch)
    roll = style.roll * rng.uniform(-1, 1)
    margin = 0.03 + 0.4 * max(
        0.0, 0.85 - body / height
    )  # a person farther away stands higher in the picture
    base = height * (1 - margin + style.crop * rng.uniform(-0.6, 1.6))
    centre = width * (0.5 + style.drift * rng.uniform(-1, 1))
    return Viewpoint(centre, base, body, pitch, roll)


def _plain_ground(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """The illustrator's page: a soft ramp between two pale colours."""
    top, bottom = (np.clip(rng.normal(205, 34, 3), 60, 255) for _ in range(2))
    ramp = np.linspace(0, 1, height)[:, None, None]
    page = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3))
    return Image.fromarray(page.astype(np.uint8))


def _street(
    style: Style, camera: int, rng: np.random.Generator, height: int, width: int
) -> Image.Image:
    """A street, small because it is out of focus: its place follows from the camera, the rest from
    the shot."""
    place = np.random.default_rng((len(style.backdrop), camera))
    wall = np.array(_WALLS[int(place.integers(len(_WALLS)))]) + place.normal(0, 8, 3)
    ground = np.array(_GROUNDS[int(place.integers(len(_GROUNDS)))]) + place.normal(0, 8, 3)
    horizon = height * (place.uniform(0.45, 0.66) + rng.uniform(-0.05, 0.05))
    shift = width * rng.uniform(-0.5, 0.5)
    image = Image.new("RGB", (width, height), to_colour(wall))
    pen = ImageDraw.Draw(image)
    _windows(pen, wall, place, shift, horizon, width)
    pen.rectangle([0, horizon * 0.96, width, horizon], fill=to_colour(wall * 0.72))
    pen.rectangle([0, horizon, width, height], fill=to_colour(ground))
    kerb = horizon + (height - horizon) * place.uniform(0.15, 0.4)
    pen.rectangle([0, kerb, width, kerb + 0.012 * height], fill=to_colour(ground * 1.14))
    pen.rectangle(
        [0, kerb + 0.012 * height, width, height], fill=to_colour(ground * place.uniform(0.85, 1.0))
    )
    for slant in np.linspace(-1.6, 1.6, 7):  # paving, towards a vanishing point
        middle = width / 2 + shift * 0.3
        line = [(middle + slant * width * 0.3, kerb), (middle + slant * width * 1.2, height)]
        pen.line(line, fill=to_colour(ground * 0.86), width=max(1, height // 200))
    if rng.random() < 0.45:
        _tree(pen, rng, kerb, width, height)
    if rng.random() < 0.4:
        _parked_car(pen, rng, kerb, width, height)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _windows(
    pen: ImageDraw.ImageDraw,
    wall: np.ndarray,
    place: np.random.Generator,
    shift: float,
    horizon: float,
    width: int,
) -> None:
    """Three storeys of windows in a wall that ends at ``horizon``."""
    glass = np.array((120, 142, 160)) + place.normal(0, 16, 3)
    step = width * place.uniform(0.32, 0.55)
    wide = step * place.uniform(0.45, 0.7)
    storey = horizon * place.uniform(0.3, 0.42)
    frame = to_colour(wall * 0.82)
    for row in range(3):
        top = row * storey + 0.06 * horizon
        for column in range(-3, 7):
            left = shift + column * step
            tone = to_colour(glass * place.uniform(0.85, 1.15))
            box = [left, top, left + wide, top + 0.62 * storey]
            pen.rectangle(box, fill=tone, outline=frame, width=max(1, width // 60))


def _tree(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, kerb: float, width: int, height: int
) -> None:
    """A trunk that stands at the kerb, and seven balls of leaves."""
    middle = width * rng.uniform(-0.05, 1.05)
    leaf = np.array(_LEAVES[int(rng.integers(len(_LEAVES)))])
    half = 0.025 * width
    pen.rectangle([middle - half, 0.2 * height, middle + half, kerb], fill=(104, 84, 66))
    for _ in range(7):
        x = middle + rng.uniform(-0.2, 0.2) * width
        y = rng.uniform(0.0, 0.3) * height
        radius = rng.uniform(0.1, 0.2) * width
        tone = to_colour(leaf * rng.uniform(0.85, 1.15))
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=tone)


def _parked_car(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, kerb: float, width: int, height: int
) -> None:
    """Body, cabin and two wheels, seen from the side at the kerb."""
    rear = width * rng.uniform(-0.6, 0.9)
    paint = _CARS[int(rng.integers(len(_CARS)))]
    long, tall = 0.8 * width, 0.085 * height
    bonnet, roof = kerb - tall, kerb - 1.8 * tall
    cabin = [
        (rear + 0.2 * long, bonnet),
        (rear + 0.32 * long, roof),
        (rear + 0.68 * long, roof),
        (rear + 0.82 * long, bonnet),
    ]
    pen.polygon(cabin, fill=(116, 136, 150))
    body = [rear, kerb - 1.1 * tall, rear + long, kerb - 0.1 * tall]
    pen.rounded_rectangle(body, tall * 0.4, fill=paint)
    radius = 0.35 * tall
    top = kerb - 0.55 * tall
    for share in (0.2, 0.8):
        axle = rear + share * long
        pen.ellipse([axle - radius, top, axle + radius, top + 2 * radius], fill=(40, 40, 44))


def _shadow(backdrop: Image.Image, viewpoint: Viewpoint) -> Image.Image:
    """The backdrop with a soft shadow at the person's feet."""
    mask = Image.new("L", (backdrop.width // 4, backdrop.height // 4), 0)
    x, y = (side / 4 for side in viewpoint.place(0, 0))
    wide, tall = 0.05 * viewpoint.height, 0.0065 * viewpoint.height
    ImageDraw.Draw(mask).ellipse([x - wide, y - tall, x + wide, y + tall], fill=130)
    mask = mask.filter(ImageFilter.GaussianBlur(0.003 * viewpoint.height)).resize(
        backdrop.size, _BILINEAR
    )
    return Image.composite(Image.new("RGB", backdrop.size, (38, 38, 42)), backdrop, mask)


def _pattern(
    pixels: np.ndarray,
    labels: np.ndarray,
    pattern: str,
    second: np.ndarray,
    period: float,
    phase: float,
) -> None:
    """Stripes or checks in a ``second`` colour over the upper garment, in place; ``period`` in
    pixels."""
    mask = labels == PART["upper"]
    rows, columns = ((np.arange(size) / period + phase) % 1.0 < 0.42 for size in labels.shape)
    if pattern == "striped":
        pixels[mask & rows[:, None]] = second
        return
    pixels[mask & rows[:, None] & columns] = second
    mixed = mask & (rows[:, None] ^ columns)
    pixels[mixed] = (pixels[mixed].astype(np.uint16) + second) // 2


def _occlude(canvas: Canvas, rng: np.random.Generator) -> None:
    """Something between camera and person: a pole, a car's bonnet or a hedge."""
    kind = rng.integers(3)
    if kind == 0:
        canvas.palette["occluder"] = to_colour(rng.uniform(90, 160) + rng.normal(0, 8, 3))
        canvas.trapezoid(float(rng.uniform(-0.16, 0.16)), 1.6, 0.022, -0.5, 0.022, "occluder")
        return
    choices = _CARS if kind == 1 else _LEAVES
    canvas.palette["occluder"] = choices[int(rng.integers(len(choices)))]
    top, tilt = float(rng.uniform(0.14, 0.36)), float(rng.uniform(-0.06, 0.06))
    canvas.polygon([(-0.9, top - tilt), (0.9, top + tilt), (0.9, -0.5), (-0.9, -0.5)], "occluder")
    if kind == 2:
        for x in np.linspace(-0.5, 0.5, 12):
            canvas.ellipse(float(x), top, 0.06, 0.04, "occluder", float(rng.uniform(0.85, 1.15)))


def _photograph(
    pixels: np.ndarray, labels: np.ndarray, style: Style, camera: int, rng: np.random.Generator
) -> np.ndarray:
    """Light, cloth, outlines and the camera's own faults."""
    pixels = pixels * _light_on_person(labels, style, rng)[..., None]
    tint = np.array(style.tints[camera % len(style.tints)], dtype=np.float32) / 255
    pixels = pixels * (rng.uniform(*style.light) * tint)
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + style.saturation * (pixels - grey)
    pixels = 118 + style.contrast * (pixels - 118)
    radius = float(rng.uniform(*style.blur)) * style.height / 128
    if radius > 0.15:
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    pixels = pixels + style.noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _light_on_person(labels: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Factors ``(H, W)`` on the picture: light from a side, rounded bodies, folds of cloth,
    outlines."""
    height, width = labels.shape
    person = labels != 0
    gain = np.ones(labels.shape, dtype=np.float32)
    side_light = 0.14 * rng.uniform(-1, 1) * np.linspace(-1, 1, width, dtype=np.float32)
    gain[person] *= 1 + np.broadcast_to(side_light, labels.shape)[person]
    if style.volume:
        gain[person] *= 1 - style.volume * (1 - _roundness(person, height))[person]
    cloth = np.isin(labels, _CLOTH)
    gain[cloth] *= 1 + style.folds * _folds(rng, height, width)[cloth]
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    gain[edge & person] *= 1 - style.outline
    return gain


def _roundness(person: np.ndarray, height: int) -> np.ndarray:
    """``(H, W)`` in [0, 1]: 1 well inside the person, less towards the outline, as on a rounded
    body."""
    mask = Image.fromarray(person.astype(np.uint8) * 255)
    soft = np.asarray(mask.filter(ImageFilter.BoxBlur(height / 42)), dtype=np.float32) / 255
    return np.clip(2 * soft - 1, 0, 1)


def _folds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth streaks, ``(H, W)`` in about [-1, 1]: cloth under light."""
    coarse = Image.fromarray(rng.normal(0, 1, (12, 14)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
