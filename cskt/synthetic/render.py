"""The renderer: an identity seen in a scene, as a picture and a part label per pixel.

Shapes are painted two or three times larger with PIL onto two canvases at once, colour and part
label, in painter's order; so the label map is the exact visible mask of every garment after
self-occlusion, occluders and cropping.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cskt.synthetic import scenery
from cskt.synthetic.body import draw_person
from cskt.synthetic.canvas import PART, Canvas, Viewpoint
from cskt.synthetic.figure import palette, pose
from cskt.synthetic.identities import Colour, Identity, dyed
from cskt.synthetic.photograph import photograph
from cskt.synthetic.style import Scene, Style


def render(person: Identity, scene: Scene, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Draw one shot.

    Returns:
        image ``(H, W, 3)`` uint8 with H = ``style.height`` and W = H / 2, and labels ``(H, W)``
        uint8, indices into ``canvas.PARTS``; what a label shows is what a viewer can see.
        Deterministic in its arguments.
    """
    rng = np.random.default_rng(scene.seed)
    scale = style.supersample
    height = style.height * scale
    width = height // 2
    viewpoint = _viewpoint(person, style, rng, height, width)
    if style.backdrop == "plain":
        backdrop = scenery.plain_page(rng, height, width)
    else:
        backdrop = scenery.street(scene.camera, rng, height, width)
    backdrop = _with_shadow(backdrop, viewpoint)
    cloth_colours = dyed(style.hue, style.paleness)
    figure = pose(person, scene.view, style, cloth_colours, rng)
    canvas = Canvas(backdrop, viewpoint, palette(person, style, cloth_colours, rng))
    draw_person(canvas, figure)
    if rng.random() < style.occlusion:
        scenery.draw_occluder(canvas, rng)
    picture = canvas.colour
    labels = np.asarray(canvas.label)
    if person.pattern in ("striped", "checked"):
        period = 0.042 * viewpoint.height
        phase = float(rng.random())
        second = cloth_colours[person.pattern_colour]
        picture = _with_pattern(picture, labels, person.pattern, second, period, phase)
    pixels = np.asarray(picture.reduce(scale), dtype=np.float32)
    middle = scale // 2
    labels = labels[middle::scale, middle::scale].copy()
    image = photograph(pixels, labels, style, scene.camera, rng)
    return image, labels


def _viewpoint(
    person: Identity, style: Style, rng: np.random.Generator, height: int, width: int
) -> Viewpoint:
    body = height * rng.uniform(*style.zoom)
    if person.umbrella_colour != "none":
        body *= 0.88
    pitch = rng.uniform(*style.pitch)
    roll = style.roll * rng.uniform(-1, 1)
    # a person farther away stands higher in the picture
    missing = max(0.0, 0.85 - body / height)
    margin = 0.03 + 0.4 * missing
    sunk = style.crop * rng.uniform(-0.6, 1.6)
    base = height * (1 - margin + sunk)
    aside = style.drift * rng.uniform(-1, 1)
    centre = width * (0.5 + aside)
    return Viewpoint(centre, base, body, pitch, roll)


def _with_shadow(backdrop: Image.Image, viewpoint: Viewpoint) -> Image.Image:
    """The backdrop with a soft shadow at the person's feet, drawn at a quarter of its size."""
    feet_x, feet_y = viewpoint.place(0, 0)
    x = feet_x / 4
    y = feet_y / 4
    wide = 0.05 * viewpoint.height
    tall = 0.0065 * viewpoint.height
    small = (backdrop.width // 4, backdrop.height // 4)
    mask = Image.new("L", small, 0)
    pen = ImageDraw.Draw(mask)
    pen.ellipse([x - wide, y - tall, x + wide, y + tall], fill=130)
    softness = 0.003 * viewpoint.height
    mask = mask.filter(ImageFilter.GaussianBlur(softness))
    mask = mask.resize(backdrop.size, Image.Resampling.BILINEAR)
    dark = Image.new("RGB", backdrop.size, (38, 38, 42))
    return Image.composite(dark, backdrop, mask)


def _with_pattern(
    picture: Image.Image,
    labels: np.ndarray,
    pattern: str,
    second: Colour,
    period: float,
    phase: float,
) -> Image.Image:
    """The picture with stripes or checks in a ``second`` colour over the upper garment; ``period``
    in pixels, ``phase`` a share of it."""
    pixels = np.array(picture)
    colour = np.array(second, dtype=np.uint8)
    garment = labels == PART["upper"]
    height, width = labels.shape
    rows = _stripes(height, period, phase)[:, None]
    columns = _stripes(width, period, phase)
    if pattern == "striped":
        pixels[garment & rows] = colour
    else:
        pixels[garment & rows & columns] = colour
        mixed = garment & (rows ^ columns)
        total = pixels[mixed].astype(np.uint16) + colour
        pixels[mixed] = total // 2
    return Image.fromarray(pixels)


def _stripes(size: int, period: float, phase: float) -> np.ndarray:
    """Which of ``size`` pixels in a line a stripe covers."""
    position = np.arange(size) / period + phase
    return position % 1.0 < 0.42
