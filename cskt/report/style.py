"""The house style of every plot: colour-blind safe, on a light ground that also reads in dark
mode."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GROUND = "#fbfaf7"
INK = "#22252b"
MUTED = "#6b7280"
BLUE = "#0072b2"
ORANGE = "#e69f00"
GREEN = "#009e73"
RED = "#d55e00"
PURPLE = "#9467bd"
METHOD_COLOURS = {"zero-shot": MUTED, "full fine-tuning": ORANGE, "CSKT": BLUE}
HEAT = "rocket_r"  # a colour map from none to much
DIVERGING = "vlag"  # and one from less to more


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
            "grid.color": "#e4e2dc",
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "svg.fonttype": "path",
            "svg.hashsalt": "cskt",
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


def show(figure: Figure) -> None:
    """Display a figure in a notebook once, and let it go."""
    from IPython.display import display

    display(figure)
    plt.close(figure)


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
