"""A search demo over two small galleries, and how its tests read and use it."""

from __future__ import annotations

import datetime
import html
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from cskt import CSKTConfig
from cskt.search.app import RetrievalDemo
from cskt.search.gallery import Gallery
from tests.tiny_runs import tiny_model

IMAGES = np.random.default_rng(0).integers(0, 255, (20, 32, 16, 3), dtype=np.uint8)
HOSTILE = '<img src=x onerror="alert(1)">'
CAMERAS = [HOSTILE, "c2", "c'3\"\\"]
FACTS = [{"identity": i // 2, "camera": CAMERAS[i % 3], "source": f"<b>{i}.png"} for i in range(20)]
QUERY = "a woman in a red coat"


def small_models(patch_size: int = 8) -> dict:
    config = CSKTConfig()
    zero_shot = config.for_method("zero-shot")
    return {
        "CSKT": tiny_model(config, patch_size=patch_size),
        "zero-shot": tiny_model(zero_shot, patch_size=patch_size),
    }


def two_galleries(folder: Path) -> dict[str, Gallery]:
    """Twenty images in the galleries of two models."""
    galleries = {}
    for name, model in small_models().items():
        galleries[name] = Gallery(folder / f"{name}.db", model)
        galleries[name].add(IMAGES, FACTS)
    return galleries


def close(galleries: dict[str, Gallery]) -> None:
    for gallery in galleries.values():
        gallery.close()


def two_sided(galleries: dict[str, Gallery]) -> RetrievalDemo:
    """A demo with two examples, the right answers for one of them, and a note."""
    return RetrievalDemo(galleries, [f"{QUERY} ", "a man"], {f" {QUERY}": [0, 3]}, "synthetic")


def said(shown: RetrievalDemo) -> str:
    """The message as a reader sees it."""
    lines = re.sub("<br>", "\n", shown.message.value)
    return html.unescape(re.sub("</?div[^>]*>", "", lines))


def cards(shown: RetrievalDemo, name: str = "CSKT") -> list:
    """Those that are to be seen."""
    side = shown.views[name]
    return [card for card in side.cards if card.widget in side.box.children]


def ids(shown: RetrievalDemo, name: str = "CSKT") -> list[str]:
    return [card.hit.id for card in cards(shown, name)]


def panel(shown: RetrievalDemo, name: str = "CSKT") -> str:
    """What is told of a hit, as html."""
    return shown.views[name].panel.value


def page(shown: RetrievalDemo) -> str:
    """All html that is shown."""
    shown_html = [shown.message.value, shown.heading.value]
    for view in shown.views.values():
        shown_html.append(view.panel.value)
        shown_html += [card.picture.value for card in view.cards]
    return "".join(shown_html)


def upload(shown: RetrievalDemo, name: str, content: bytes) -> None:
    """As the browser does it."""
    file = {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime.datetime.now(datetime.UTC),
    }
    shown.upload.value = (file,)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
