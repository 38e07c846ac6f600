"""The house style of every plot: colour-blind safe, with a light and a dark version in one file,
and with a caption and an alternative text that the book reads from it."""

from __future__ import annotations

import base64
import html
import io
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

GROUND = "#fbfaf7"
INK = "#22252b"
MUTED = "#6b7280"
GRID = "#e4e2dc"
BLUE = "#0072b2"
ORANGE = "#e69f00"
GREEN = "#009e73"
RED = "#d55e00"
PURPLE = "#9467bd"
METHOD_COLOURS = {"zero-shot": MUTED, "full fine-tuning": ORANGE, "CSKT": BLUE}
HEAT = "rocket_r"  # a colour map from none to much
DIVERGING = "vlag"  # and one from less to more
# What stands for each colour on a dark page, whose ground is the theme's.
DARK = {
    GROUND: "#14181e",
    INK: "#dfe3e8",
    MUTED: "#9ca4af",
    GRID: "#364150",
    BLUE: "#4aa8e0",
    GREEN: "#2fbf95",
    RED: "#f0803c",
    PURPLE: "#b493d8",
}
PIXELATED = "image-rendering:crisp-edges;image-rendering:pixelated"
PICTURE = 400  # pixels, from which on an image is a photograph and not a map of few cells

_words: WeakKeyDictionary[Figure, tuple[str, str, str]] = WeakKeyDictionary()


def set_style() -> None:
    """Make the house style matplotlib's default."""
    sns.set_theme(
        style="ticks",
        rc={
            "figure.facecolor": GROUND,
            "axes.facecolor": GROUND,
            "savefig.facecolor": GROUND,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "xtick.color": INK,
            "ytick.color": INK,
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "svg.fonttype": "path",
            "svg.hashsalt": "cskt",
            "image.composite_image": False,
            "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, MUTED]),
        },
    )


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure (svg or png by its suffix) without a date, so that equal figures are equal
    files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = "Date" if path.suffix == ".svg" else "Software"
    figure.savefig(path, bbox_inches="tight", dpi=160, metadata={undated: None})
    return path


def describe(figure: Figure, name: str, caption: str, alternative: str) -> Figure:
    """``figure``, which from now on carries a ``name`` (letters, digits, hyphens), a ``caption``
    and, for those who do not see it, an ``alternative`` text that says what it shows."""
    _words[figure] = (name, caption, " ".join(alternative.split()))
    return figure


def listed(values: Mapping[Any, float] | pd.Series) -> str:
    """Numbers by name, or by several names, in words: ``a 1.5, b 20.0``."""
    parts = []
    for name, value in values.items():
        words = " ".join(name) if isinstance(name, tuple) else name
        parts.append(f"{words} {value:.1f}")
    return ", ".join(parts)


def show(figure: Figure) -> None:
    """Display a figure in a notebook once, and let it go."""
    from IPython.display import display

    _, _, alternative = _words_of(figure)
    display({"image/svg+xml": drawing(figure), "text/plain": alternative}, raw=True)
    plt.close(figure)


def _words_of(figure: Figure) -> tuple[str, str, str]:
    return _words.get(figure, ("plot", "", "a plot"))


def drawing(figure: Figure) -> str:
    """A figure as svg: light or dark as the page that shows it, with the words of :func:`describe`
    as ``title`` and ``desc``, and with its photographs as they were given, compressed."""
    for axes in figure.axes:
        for picture in axes.images:
            picture.set_interpolation("none")  # the reader's browser does it better
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=nothing)
    text = re.sub(r"<image [^>]*>", _compressed, buffer.getvalue(), flags=re.DOTALL)
    name, caption, alternative = _words_of(figure)
    words = f"<desc>{html.escape(alternative)}</desc>"
    if caption:
        words = f"<title>{html.escape(caption)}</title>{words}"
    start = re.search(r"<svg [^>]*>", text, flags=re.DOTALL)
    assert start is not None, "matplotlib begins a drawing with its root"
    root = start[0].replace("<svg ", f'<svg data-name="{name}" ', 1)
    return text[start.start() :].replace(start[0], f"{root}{words}{_dark_rules()}", 1)


def _dark_rules() -> str:
    """Css that puts :data:`DARK` in place of each light colour; an image on a page takes the page's
    colour scheme."""
    rules = []
    for light, dark in DARK.items():
        for part in ("fill", "stroke"):
            rules.append(f'[style*="{part}: {light}"]{{{part}:{dark}!important}}')
    return f"<style>@media (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"


def _compressed(element: re.Match) -> str:
    """An svg image: a photograph smooth, and as jpeg where that is smaller; a map of few cells as
    it is."""
    text = element[0]
    found = re.search(r"data:image/png;base64,\s*([^\"]+)", text)
    if found is None:
        return text
    content = base64.b64decode(found[1])
    picture = Image.open(io.BytesIO(content))
    if picture.width * picture.height < PICTURE:
        return text
    text = text.replace(PIXELATED, "")
    if picture.convert("RGBA").getchannel("A").getextrema() == (255, 255):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=90)
        if len(buffer.getvalue()) < len(content):
            coded = base64.b64encode(buffer.getvalue()).decode()
            text = text.replace(found[0], f"data:image/jpeg;base64,{coded}")
    return text


def draw_picture(axes: Axes, image: np.ndarray, frame: str | None = None, title: str = "") -> None:
    """An image (H, W, 3) uint8, in a frame of the colour ``frame`` if any, its title in the
    same."""
    axes.imshow(image, interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_title(title, fontsize=8.5, loc="center", color=frame or INK, pad=3)
    for spine in axes.spines.values():
        spine.set(visible=frame is not None, color=frame or MUTED, linewidth=2.6)


def wrap(text: str, width: int) -> str:
    """``text`` in lines of at most ``width`` characters; a longer word has a line of its own."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
