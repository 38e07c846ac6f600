"""From flat paint to a photograph: light, cloth, outlines, and the camera's own faults."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from cskt.synthetic.canvas import PART
from cskt.synthetic.style import Style

_CLOTH = ("upper", "inner", "lower", "bag", "scarf", "headwear", "umbrella")


def photograph(
    pixels: np.ndarray, labels: np.ndarray, style: Style, camera: int, rng: np.random.Generator
) -> np.ndarray:
    """Painted ``pixels`` (H, W, 3) float32 with part ``labels`` (H, W) as a camera sees them, (H,
    W, 3) uint8."""
    gain = _light_on_person(labels, style, rng)
    pixels = pixels * gain[..., None]
    tint = style.tints[camera % len(style.tints)]
    white = np.array(tint, dtype=np.float32) / 255
    brightness = rng.uniform(*style.light)
    pixels = pixels * (brightness * white)
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + style.saturation * (pixels - grey)
    pixels = 118 + style.contrast * (pixels - 118)
    radius = float(rng.uniform(*style.blur)) * style.height / 128
    if radius > 0.15:
        pixels = _blurred(pixels, radius)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    pixels = pixels + style.noise * noise
    return _to_bytes(pixels)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _blurred(pixels: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray(_to_bytes(pixels))
    blurred = image.filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, dtype=np.float32)


def _light_on_person(labels: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Factors ``(H, W)`` on the picture: light from a side, rounded bodies, folds of cloth,
    outlines."""
    height, width = labels.shape
    person = labels != 0
    gain = np.ones(labels.shape, dtype=np.float32)
    strength = 0.14 * rng.uniform(-1, 1)
    across = np.linspace(-1, 1, width, dtype=np.float32)
    side_light = np.broadcast_to(strength * across, labels.shape)
    gain[person] *= 1 + side_light[person]
    if style.volume:
        shade = style.volume * (1 - _roundness(person, height))
        gain[person] *= 1 - shade[person]
    cloth = np.isin(labels, [PART[name] for name in _CLOTH])
    folds = style.folds * _folds(rng, height, width)
    gain[cloth] *= 1 + folds[cloth]
    outline = _edges(labels) & person
    gain[outline] *= 1 - style.outline
    return gain


def _edges(labels: np.ndarray) -> np.ndarray:
    """``(H, W)`` bool: where the part is another one than a pixel higher or to the left."""
    edge = np.zeros(labels.shape, dtype=bool)
    differs_from_above = labels[1:] != labels[:-1]
    differs_from_left = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= differs_from_above
    edge[:, 1:] |= differs_from_left
    return edge


def _roundness(person: np.ndarray, height: int) -> np.ndarray:
    """``(H, W)`` in [0, 1]: 1 well inside the person, less towards the outline, as on a rounded
    body."""
    silhouette = person.astype(np.uint8) * 255
    mask = Image.fromarray(silhouette)
    blurred = mask.filter(ImageFilter.BoxBlur(height / 42))
    soft = np.asarray(blurred, dtype=np.float32) / 255
    return np.clip(2 * soft - 1, 0, 1)


def _folds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth streaks, ``(H, W)`` in about [-1, 1]: cloth under light."""
    coarse = rng.normal(0, 1, (12, 14)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth)
