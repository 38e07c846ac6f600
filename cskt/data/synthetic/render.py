"""The renderer: an identity seen in a scene, as a 128x64 picture and a part label per pixel.

Shapes are painted three times larger with PIL onto two canvases at once, colour and part label, in painter's order;
so the label map is the exact visible mask of every garment after self-occlusion, occluders and cropping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .figure import PART, Canvas, Figure, to_colour
from .identities import COLOURS, Colour, Identity

HEIGHT, WIDTH, SUPERSAMPLE = 128, 64, 3
_CLOTH = [PART[name] for name in ("upper", "inner", "lower", "bag", "scarf", "headwear")]


@dataclass(frozen=True)
class Style:
    """How a camera network, or an illustrator, sees the world. Colours survive: light and tint stay moderate."""

    light: tuple[float, float] = (0.9, 1.1)
    tints: tuple[Colour, ...] = ((255, 255, 255),)
    saturation: float = 1.0
    contrast: float = 1.0
    palette_shift: float = 10.0
    noise: float = 4.0
    blur: tuple[float, float] = (0.0, 0.5)
    outline: float = 0.25
    folds: float = 0.12
    head: float = 1.0
    backdrop: str = "street"
    occlusion: float = 0.15
    crop: float = 0.04
    raise_arm: float = 0.0


@dataclass(frozen=True)
class Scene:
    """One shot: what is fixed neither by the identity nor by the style."""

    view: str
    camera: int
    seed: int


def _backdrop(style: Style, camera: int, rng: np.random.Generator) -> Image.Image:
    """A blurred street that belongs to the camera, or the generic corpus' plain gradient."""
    width, height = WIDTH * SUPERSAMPLE, HEIGHT * SUPERSAMPLE
    if style.backdrop == "plain":
        top, bottom = (np.clip(rng.normal(205, 34, 3), 60, 255) for _ in range(2))
        ramp = np.linspace(0, 1, height)[:, None, None]
        return Image.fromarray(np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3)).astype(np.uint8))
    place = np.random.default_rng(7919 * camera + len(style.backdrop))
    wall = place.uniform(95, 205) + place.normal(0, 9, 3)
    ground = place.uniform(80, 175) + place.normal(0, 8, 3)
    horizon = int(height * (place.uniform(0.42, 0.72) + rng.uniform(-0.05, 0.05)))
    image = Image.new("RGB", (width, height), to_colour(wall))
    pen = ImageDraw.Draw(image)
    for _ in range(int(place.integers(3, 7))):
        x, y = rng.uniform(-0.2, 1.0) * width, rng.uniform(-0.1, 0.35) * height
        w, h = place.uniform(0.15, 0.5) * width, place.uniform(0.1, 0.35) * height
        fill = to_colour(wall + place.normal(0, 30) + place.normal(0, 7, 3))
        pen.rectangle([x, y, x + w, min(y + h, horizon)], fill=fill)
    pen.rectangle([0, horizon, width, height], fill=to_colour(ground))
    for _ in range(3):
        y = rng.uniform(horizon, height)
        fill = to_colour(ground + rng.normal(0, 14))
        pen.line([(0, y), (width, y + rng.uniform(-30, 30))], fill=fill, width=int(rng.integers(2, 7)))
    return image.filter(ImageFilter.BoxBlur(4))


def _pattern(pixels: np.ndarray, labels: np.ndarray, person: Identity, canvas: Canvas, phase: float) -> None:
    """Stripes or checks over the upper garment, in place, keeping the shading of what is below."""
    mask, striped = labels == PART["upper"], person.pattern == "striped"
    rows, columns = ((np.arange(size) / (0.042 * canvas.height) + phase) % 1.0 < 0.42 for size in labels.shape)
    second = np.array(COLOURS[person.pattern_colour], dtype=np.uint8)
    pixels[mask & rows[:, None] & (columns | striped)] = second
    if not striped:
        mixed = mask & (rows[:, None] ^ columns)
        pixels[mixed] = (pixels[mixed].astype(np.uint16) + second) // 2


def _folds(rng: np.random.Generator) -> np.ndarray:
    """Smooth streaks, (HEIGHT, WIDTH) in about [-1, 1]: cloth under light."""
    coarse = Image.fromarray(rng.normal(0, 1, (12, 14)).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def _occlude(canvas: Canvas, rng: np.random.Generator) -> None:
    """Something between camera and person: a pole, a car's bonnet or a hedge."""
    kind = rng.integers(3)
    canvas.palette["occluder"] = to_colour(rng.uniform(40, 190) + rng.normal(0, 12, 3))
    if kind == 0:
        canvas.trapezoid(float(rng.uniform(-0.16, 0.16)), 1.4, 0.022, -0.3, 0.022, "occluder")
        return
    top, tilt = float(rng.uniform(0.14, 0.36)), float(rng.uniform(-0.06, 0.06))
    canvas.polygon([(-0.6, top - tilt), (0.6, top + tilt), (0.6, -0.3), (-0.6, -0.3)], "occluder")
    if kind == 2:
        for x in np.linspace(-0.4, 0.4, 9):
            canvas.ellipse(float(x), top, 0.06, 0.04, "occluder", float(rng.uniform(0.8, 1.2)))


def render(person: Identity, scene: Scene, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Draw one shot.

    Returns:
        image ``(128, 64, 3)`` uint8 and labels ``(128, 64)`` uint8, indices into ``figure.PARTS``; what a label
        shows is what a viewer can see. Deterministic in its arguments.
    """
    rng = np.random.default_rng(scene.seed)
    width, height = WIDTH * SUPERSAMPLE, HEIGHT * SUPERSAMPLE
    body = height * rng.uniform(0.80, 0.90) * (0.88 if person.umbrella_colour != "none" else 1.0)
    base = height * (0.97 + style.crop * rng.uniform(-0.6, 1.6))
    backdrop, centre = _backdrop(style, scene.camera, rng), width * (0.5 + 0.05 * rng.uniform(-1, 1))
    ImageDraw.Draw(backdrop).ellipse([centre - 0.17 * body, base - 0.015 * body, centre + 0.17 * body,
                                      base + 0.02 * body], fill=(64, 64, 66))  # the shadow
    canvas = Figure(backdrop, centre, base, body, person, scene.view, rng, style.palette_shift, style.head,
                    style.raise_arm)
    canvas.draw()
    if rng.random() < style.occlusion:
        _occlude(canvas, rng)
    labels = np.asarray(canvas.label)
    if person.pattern in ("striped", "checked"):
        pixels = np.array(canvas.colour)
        _pattern(pixels, labels, person, canvas, float(rng.random()))
        canvas.colour = Image.fromarray(pixels)
    small = np.asarray(canvas.colour.reduce(SUPERSAMPLE), dtype=np.float32)
    labels = labels[SUPERSAMPLE // 2::SUPERSAMPLE, SUPERSAMPLE // 2::SUPERSAMPLE]
    return _photograph(small, labels, style, scene.camera, rng), labels.copy()


def _photograph(pixels: np.ndarray, labels: np.ndarray, style: Style, camera: int, rng: np.random.Generator
                ) -> np.ndarray:
    """Light, cloth, outlines and the camera's own faults."""
    person, cloth, edge = labels != 0, np.isin(labels, _CLOTH), np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    gain = np.ones(labels.shape, dtype=np.float32)
    side_light = 0.16 * rng.uniform(-1, 1) * np.linspace(-1, 1, WIDTH, dtype=np.float32)
    gain[person] *= 1 + np.broadcast_to(side_light, labels.shape)[person]
    gain[cloth] *= 1 + style.folds * _folds(rng)[cloth]
    gain[edge & person] *= 1 - style.outline
    pixels = pixels * gain[..., None]
    tint = np.array(style.tints[camera % len(style.tints)], dtype=np.float32) / 255
    pixels = pixels * (rng.uniform(*style.light) * tint)
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + style.saturation * (pixels - grey)
    pixels = 110 + style.contrast * (pixels - 110)
    radius = float(rng.uniform(*style.blur))
    if radius > 0.15:
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    pixels = pixels + style.noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)
