"""What a search finds, and html that shows it, for notebooks, pages and contact sheets."""

from __future__ import annotations

import base64
import contextlib
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cskt.data.images import read_image
from cskt.errors import CSKTError, GalleryError
from cskt.html import HEAT, STRONGEST, image_uri
from cskt.search.pictures import digest_of

THUMBNAIL = (256, 256)  # at most, width and height
GREEN = "#009e73"
ORANGE = "#d55e00"
GREY = "#9aa0a6"
LOWERING = "#7a8794"
MISSING = np.full((*THUMBNAIL, 3), 160, np.uint8)  # in place of a picture that is gone
SHEET = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{query}</title>
<meta name="viewport" content="width=device-width">
<style>:root {{ color-scheme: light dark; font: 15px system-ui }}
main {{ display: flex; flex-wrap: wrap; gap: 12px }}
figure {{ margin: 0; width: 150px; overflow-wrap: anywhere }}
img {{ height: 192px; max-width: 100%; border-radius: 4px }} small {{ opacity: 0.7 }}</style>
<h1>{query}</h1>{remarks}<main>{figures}</main></html>
"""


@dataclass(frozen=True)
class Hit:
    """An image found: cosine similarity ``score``, where it came from, and what is known of it
    (None: unknown)."""

    id: str
    score: float
    source: str
    thumbnail: Path | None = None
    identity: int | None = None
    camera: str | None = None
    time: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def label(self) -> str:
        """What is known of the image, in a line."""
        facts = {"identity": self.identity, "camera": self.camera, "time": self.time}
        facts.update(self.extra)
        words = [Path(self.source).name]
        for name, value in facts.items():
            if value is not None:
                words.append(f"{name} {value}")
        return ", ".join(words)

    def image(self) -> Image.Image:
        """The picture itself, or its thumbnail where that is gone or another by now;
        :class:`CSKTError` if both are."""
        source = Path(self.source)
        with contextlib.suppress(CSKTError, OSError):
            if digest_of(source) == self.id:
                return read_image(source)
        with contextlib.suppress(CSKTError, OSError):
            if self.thumbnail is not None:
                return read_image(self.thumbnail)
        raise GalleryError(
            f"the image {self.source} and its thumbnail are gone; "
            "restore the file or index it again."
        )


def small_uri(picture: Image.Image, size: tuple[int, int] = THUMBNAIL) -> str:
    """A picture, shrunk to fit ``size``, as a data address."""
    small = picture.convert("RGB")
    small.thumbnail(size)
    return image_uri(np.asarray(small))


def hit_picture(hit: Hit) -> str:
    """A hit's picture as a data address; an empty grey one where both file and thumbnail are
    gone."""
    with contextlib.suppress(OSError, CSKTError):  # another process may delete it
        if hit.thumbnail is not None and not hit.thumbnail.is_symlink():
            content = hit.thumbnail.read_bytes()
            read_image(io.BytesIO(content))  # whatever else the file is, it goes on no page
            return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    try:
        return small_uri(hit.image())
    except CSKTError:
        return image_uri(MISSING)


def hit_figure(uri: str, rank: int, score: float, label: str, right: bool | None = None) -> str:
    """A hit as html: framed green if it is right, orange if wrong, grey if unknown. The label is
    escaped."""
    if right is None:
        colour, mark = GREY, ""
    elif right:
        colour, mark = GREEN, "✓ right"
    else:
        colour, mark = ORANGE, "✗ wrong"
    text = html.escape(f"rank {rank}, {label}, similarity {score:.2f} {mark}".strip())
    return (
        '<figure style="margin:4px;display:inline-block;text-align:center;line-height:18px">'
        f'<img src="{uri}" alt="{text}" title="{text}" style="border:4px solid {colour};'
        'border-radius:4px;height:150px;width:auto;max-width:150px;object-fit:contain">'
        f'<figcaption style="font-size:12px;margin:0">{rank} · {score:.2f} {mark}</figcaption>'
        "</figure>"
    )


def contact_sheet(query: str, hits: Sequence[Hit], remarks: Sequence[str] = ()) -> str:
    """A page of its own that shows what was asked and found, pictures included. All text is
    escaped."""
    figures = []
    for rank, hit in enumerate(hits, start=1):
        label = html.escape(hit.label())
        source = html.escape(hit.source)
        figures.append(
            f'<figure><img src="{hit_picture(hit)}" alt="{label}"><figcaption>{rank} · '
            f"{hit.score:.3f}<br>{label}<br><small>{source}</small></figcaption></figure>"
        )
    paragraphs = [f"<p>{html.escape(remark)}</p>" for remark in remarks]
    return SHEET.format(
        query=html.escape(query), remarks="".join(paragraphs), figures="".join(figures)
    )


def opacities(shares: np.ndarray) -> np.ndarray:
    """How opaque shares are drawn: clear at the lowest, and everywhere where they are alike."""
    spread = np.ptp(shares) or 1
    return STRONGEST * (shares - shares.min()) / spread


def shaded(uri: str, shares: np.ndarray, label: str, height: int = 320) -> str:
    """A picture as html, under a grid of heat (rows, columns) that covers it. The label is
    escaped."""
    rows, columns = shares.shape
    cells = []
    for share, opacity in zip(shares.flat, opacities(shares).flat, strict=True):
        colour = f"rgba({HEAT},{opacity:.3f})"
        cells.append(f'<div title="{share:.4f}" style="background:{colour}"></div>')
    return (
        '<div style="position:relative;align-self:flex-start">'
        f'<img src="{uri}" style="display:block;height:{height}px;width:auto;max-width:none" '
        f'alt="{html.escape(label)}"><div style="position:absolute;inset:0;display:grid;'
        f'grid-template:repeat({rows},1fr)/repeat({columns},1fr)">{"".join(cells)}</div></div>'
    )


def word_bars(effects: Sequence[tuple[str, float]]) -> str:
    """Words and what each adds, as html: bars to the right for what raises, to the left for what
    lowers."""
    strongest = max((abs(value) for _, value in effects), default=0) or 1
    rows = []
    for word, value in effects:
        width = 50 * abs(value) / strongest
        colour = f"rgb({HEAT})"
        left = 50.0
        if value < 0:
            colour = LOWERING
            left = 50 - width
        bar = f'<i style="left:{left:.1f}%;width:{width:.1f}%;background:{colour}"></i>'
        rows.append(
            f"<div><b>{html.escape(word)}</b><span>{bar}</span><code>{value:+.3f}</code></div>"
        )
    return f'<div class="cskt-words">{"".join(rows)}</div>'
