"""The patches' attention to prompts on a page without Python: html with style, script and data."""

from __future__ import annotations

import html
import itertools
import json
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
    const picture = find(".stage img");
    picture.src = thumbnail.src;
    picture.alt = `${shown}, shaded by attention`;
    find("output").textContent = layer;
    find(".shown").textContent = shown;
    find(".low").textContent = (low / 1e4).toFixed(4);
    find(".high").textContent = (high / 1e4).toFixed(4);
  };
  root.addEventListener("input", show);
  window.addEventListener("pageshow", show);
  show();
}"""
_numbers = itertools.count()  # of the views of a page


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
    expected = (len(images), len(names))
    if (len(maps), maps.shape[2]) != expected or not np.isfinite(maps).all():
        raise ConfigurationError(
            f"maps must be finite, of {expected[0]} images and {expected[1]} prompts, "
            f"got {maps.shape}."
        )
    layers, rows, columns = maps.shape[1], maps.shape[3], maps.shape[4]
    per_cell = np.rint(maps * 1e4).astype(int).reshape(*maps.shape[:3], -1)  # shorter than decimals
    data = json.dumps(per_cell.tolist(), separators=(",", ":"))
    view = f"cskt-view-{next(_numbers)}"
    thumbnails = "".join(_thumbnail(view, number, image) for number, image in enumerate(images))
    options = "".join(f"<option>{html.escape(name)}</option>" for name in names)
    label = html.escape(title or "Attention of patches to prompts")
    return f"""<section class="cskt-view" id="{view}" style="--heat:{HEAT}" aria-label="{label}">
<style>{STYLE}</style>
<b>{label}</b>
<div role="radiogroup" aria-label="Image">{thumbnails}</div>
<div class="stage">
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
