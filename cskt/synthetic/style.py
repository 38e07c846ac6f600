"""What a picture depends on besides the person: the style of a camera network, and one scene."""

from __future__ import annotations

from dataclasses import dataclass

from cskt.synthetic.identities import Colour

HEIGHT, WIDTH = 256, 128  # of a SynthPEDES picture, in pixels


@dataclass(frozen=True)
class Style:
    """How a camera network, or an illustrator, sees the world.

    ``height`` is the picture's, in pixels (its width is half of it), painted ``supersample`` times
    larger. Pairs are ranges that every shot draws from: ``light`` (a factor), ``blur`` (a radius in
    pixels of a picture of 128 x 64), ``zoom`` (the person's share of the picture's height),
    ``pitch`` (see :class:`~.canvas.Viewpoint`) and ``stride``. ``roll`` (degrees) and ``drift`` (a
    share of the width) are how far a shot may be off to either side. ``noise`` and
    ``palette_shift`` are standard deviations in grey values: of pixels, and of the colour of a
    garment; ``hue`` and ``paleness`` say how cloth is dyed (:func:`~.identities.dyed`).
    ``backdrop`` is ``"street"`` or ``"plain"``.
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
    """One shot: what is fixed neither by the identity nor by the style. ``view`` is ``"front"``,
    ``"back"``, ``"left"`` or ``"right"``; all that is random follows from ``seed``."""

    view: str
    camera: int
    seed: int
