"""The patches' attention to prompts on a page without Python: html with style, script and data."""

from __future__ import annotations

import html
import itertools
import json
import zlib
from collections.abc import Sequence

import numpy as np

from cskt.errors import ConfigurationError
from cskt.html import HEAT, SCALE, STRONGEST, image_uri

# The book's theme pads and rounds images in dark mode, which would move them from under the heat:
# hence !important.
STYLE = """
.cskt-view img { display: block; width: auto; max-width: none; padding: 0 !important;
  border-radius: 0 !important }
.cskt-view label { display: inline-block; position: relative }
.cskt-view [type=radio] { position: absolute; opacity: 0 }
.cskt-view [type=radio] + img { height: 72px; border: 3px solid transparent; cursor: pointer }
.cskt-view [type=radio]:checked + img { border-color: rgb(var(--heat)) }
.cskt-view [type=radio]:focus-visible + img { outline: 2px solid currentColor }
.cskt-view .stage { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 8px }
.cskt-view .stage img { height: 384px }
.cskt-view canvas { position: absolute; inset: 0; width: 100%; height: 100%;
  image-rendering: pixelated }"""

# A function of the view's id, the maps [image][layer][prompt][cell] in ten thousandths, the grid's
# size and how cells are coloured.
SCRIPT = """(id, maps, rows, columns, heat, strongest) => {
  const root = document.getElementById(id);
  const find = (query) => root.querySelector(query);
  const paint = (shares, low, high) => {
    const pen = find("canvas").getContext("2d");
    pen.clearRect(0, 0, columns, rows);
    shares.forEach((share, cell) => {
      const opacity = strongest * (share - low) / (high - low || 1);
      pen.fillStyle = `rgba(${heat},${opacity})`;
      pen.fillRect(cell % columns, Math.floor(cell / columns), 1, 1);
    });
  };
  const show = () => {
    const image = find("input:checked");
    const thumbnail = image.nextElementSibling;
    const layer = find("[type=range]").value;
    const prompt = find("select");
    const shares = maps[image.value][layer - 1][prompt.selectedIndex];
    const low = Math.min(...shares);
    const high = Math.max(...shares);
    paint(shares, low, high);
    const shown = `${thumbnail.alt}, layer ${layer}, prompt ${prompt.value}`;
    const [picture, heated] = root.querySelectorAll(".stage img");
    picture.src = heated.src = thumbnail.src;
    picture.alt = thumbnail.alt;
    heated.alt = `${shown}, shaded by attention`;
    find("output").textContent = layer;
    find(".shown").textContent = shown;
    find(".low").textContent = (low / 1e4).toFixed(4);
    find(".high").textContent = (high / 1e4).toFixed(4);
  };
  root.addEventListener("input", show);
  window.addEventListener("pageshow", show);
  show();
}"""
_numbers = itertools.count()  # of the views, so that two of the same maps can stand on one page


def prompt_view(images: np.ndarray, maps: np.ndarray, names: Sequence[str], title: str = "") -> str:
    """A view in which a reader chooses an image, a layer and a prompt.

    Args:
        images: (N, H, W, 3) uint8.
        maps: (N, layers, P, rows, columns), shown to four decimals, such as
            :func:`cskt.analysis.attention.prompt_maps` averaged over heads.
        names: of the P prompts, such as :func:`cskt.analysis.attention.prompt_names`.
        title: what stands above, in place of "Attention of patches to prompts".

    Raises:
        ConfigurationError: shapes that do not fit, or maps that are not finite.
    """
    _check_images(images)
    maps = np.asarray(maps)
    _check_maps(maps, len(images), len(names))
    layers, rows, columns = maps.shape[1], maps.shape[3], maps.shape[4]
    per_cell = np.rint(maps * 1e4).astype(int).reshape(*maps.shape[:3], -1)  # shorter than decimals
    data = json.dumps(per_cell.tolist(), separators=(",", ":"))
    view = f"cskt-view-{zlib.crc32(data.encode()):08x}-{next(_numbers)}"
    thumbnails = "".join(_thumbnail(view, number, image) for number, image in enumerate(images))
    options = "".join(f"<option>{html.escape(name)}</option>" for name in names)
    label = html.escape(title or "Attention of patches to prompts")
    return f"""<section class="cskt-view" id="{view}" style="--heat:{HEAT}" aria-label="{label}">
<style>{STYLE}</style>
<b>{label}</b>
<div role="radiogroup" aria-label="Image">{thumbnails}</div>
<div class="stage">
<img alt="">
<div style="position:relative">
<img alt=""><canvas width="{columns}" height="{rows}"></canvas>
</div>
<div>
<label>Layer <input type="range" min="1" max="{layers}" value="1"> <output></output></label><br>
<label>Prompt <select>{options}</select></label>
<p aria-live="polite"><span class="shown"></span>:<br>attention from
<span class="low"></span> {SCALE} to <span class="high"></span></p>
</div>
</div>
<script>({SCRIPT})("{view}", {data}, {rows}, {columns}, "{HEAT}", {STRONGEST})</script>
</section>"""


def _thumbnail(view: str, number: int, image: np.ndarray) -> str:
    checked = " checked" if number == 0 else ""
    return (
        f'<label><input type="radio" name="{view}" value="{number}"{checked}>'
        f'<img src="{image_uri(image)}" alt="image {number + 1}"></label>'
    )


def _check_images(images: np.ndarray) -> None:
    kind = getattr(images, "dtype", type(images).__name__)
    shape: tuple[int, ...] = getattr(images, "shape", ())
    are_pictures = kind == np.uint8 and len(shape) == 4 and shape[3] == 3
    if not are_pictures or shape[0] == 0:
        raise ConfigurationError(
            f"images must be a uint8 array (N, H, W, 3) with N >= 1, got {kind} {tuple(shape)}."
        )


def _check_maps(maps: np.ndarray, images: int, prompts: int) -> None:
    fits = maps.ndim == 5 and maps.shape[0] == images and maps.shape[2] == prompts
    if not fits or maps.size == 0:
        raise ConfigurationError(
            f"maps must be ({images} images, layers, {prompts} prompts, rows, columns), "
            f"got {maps.shape}."
        )
    if not np.isfinite(maps).all():
        raise ConfigurationError("maps must be finite.")
