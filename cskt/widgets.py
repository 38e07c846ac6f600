"""What a reader can touch: the attention to prompts, in a notebook and on a static page; retrieval
is in ``demo``."""

from __future__ import annotations

import html
import itertools
import json
import zlib
from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch

from cskt.errors import CSKTError

from .data.pipeline import normalize
from .hits import opacities, shaded
from .html import HEAT, SCALE, STRONGEST, image_uri
from .model.cskt import CSKT, fit_captions
from .probes import prompt_maps, prompt_names, word_maps

CACHED_MAPS = 64  # of images and captions; an image's take about a megabyte in a ViT-B/16
# The book's theme pads and rounds images in dark mode, which would move them from under the heat:
# hence !important.
VIEW_STYLE = """
.cskt-view img { display: block; width: auto; max-width: none; padding: 0 !important; border-radius: 0 !important }
.cskt-view label { display: inline-block; position: relative }
.cskt-view [type=radio] { position: absolute; opacity: 0 }
.cskt-view [type=radio] + img { height: 72px; border: 3px solid transparent; cursor: pointer }
.cskt-view [type=radio]:checked + img { border-color: rgb(var(--heat)) }
.cskt-view [type=radio]:focus-visible + img { outline: 2px solid currentColor }
.cskt-view .stage { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 8px }
.cskt-view .stage img { height: 384px }
.cskt-view canvas { position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated }"""
VIEW_SCRIPT = """(id, maps, rows, columns, heat, strongest) => {
  const root = document.getElementById(id), find = (query) => root.querySelector(query);
  const show = () => {
    const image = find("input:checked"), layer = find("[type=range]").value, prompt = find("select");
    const shares = maps[image.value][layer - 1][prompt.selectedIndex], thumbnail = image.nextElementSibling;
    const low = Math.min(...shares), high = Math.max(...shares), pen = find("canvas").getContext("2d");
    pen.clearRect(0, 0, columns, rows);
    shares.forEach((share, cell) => {
      pen.fillStyle = `rgba(${heat},${strongest * (share - low) / (high - low || 1)})`;
      pen.fillRect(cell % columns, Math.floor(cell / columns), 1, 1);
    });
    const shown = `${thumbnail.alt}, layer ${layer}, prompt ${prompt.value}`;
    root.querySelectorAll(".stage img").forEach((big, heated) => {
      big.src = thumbnail.src;
      big.alt = heated ? `${shown}, shaded by attention` : thumbnail.alt;
    });
    const texts = { output: layer, ".shown": shown, ".low": (low / 1e4).toFixed(4), ".high": (high / 1e4).toFixed(4) };
    for (const query in texts) find(query).textContent = texts[query];
  };
  for (const [target, event] of [[root, "input"], [window, "pageshow"]]) target.addEventListener(event, show);
  show();
}"""
_views = itertools.count()


class PromptExplorer:
    """Who looks at a prompt: patches of an image and words of a caption, by layer, head and prompt,
    counted from 1.

    Args:
        model: one without prompts shows a sentence that says so.
        images: (N, H, W, 3) uint8, of ``model.image_size``.
        captions: at least one.

    Raises:
        CSKTError: no or unfit images or captions, or a tokenizer that cannot give back the words.
    """

    def __init__(self, model: CSKT, images: np.ndarray, captions: Sequence[str]) -> None:
        _check_images(images, model.image_size)
        if (
            isinstance(captions, str)
            or not len(captions)
            or not all(isinstance(text, str) for text in captions)
        ):
            raise CSKTError("captions must be a list of at least one str.")
        if not hasattr(
            model.tokenizer, "decode"
        ):  # those of other languages split words in ways of their own
            raise CSKTError(
                "this backbone's tokenizer is not CLIP's, so words cannot be told; use another backbone."
            )
        self.model, self.images, self.captions = model, images, list(captions)
        self._maps: dict[tuple[str, int], np.ndarray] = {}
        self.picture, self.words = widgets.HTML(), widgets.HTML()
        self.names = {tower: prompt_names(model, tower) for tower in ("text", "vision")}
        blocks = [tower.transformer.resblocks for tower in (model.backbone.visual, model.backbone)]
        self.image = widgets.Dropdown(
            options=[(f"image {i + 1}", i) for i in range(len(images))], description="Image"
        )
        self.caption = widgets.Dropdown(
            options=[(f"{i + 1}: {text[:110]}", i) for i, text in enumerate(captions)],
            description="Caption",
            layout=widgets.Layout(width="min(640px, 95%)"),
        )
        self.layer = widgets.IntSlider(
            value=1, min=1, max=max(map(len, blocks)), description="Layer"
        )
        heads = range(1, 1 + max(tower[0].attn.num_heads for tower in blocks))
        self.head = widgets.Dropdown(options=["mean", *map(str, heads)], description="Head")
        names = dict.fromkeys(itertools.chain(*self.names.values()))
        self.prompt = widgets.Dropdown(options=list(names), description="Prompt")
        controls = (
            [self.image, self.caption, self.layer, self.head, self.prompt]
            if model.num_prompts
            else []
        )
        for control in controls:
            control.observe(lambda _: self.show(), names="value")
        self.widget = widgets.VBox([*controls, self.picture, self.words])
        self.show()

    def attention(self, tower: str) -> np.ndarray:
        """The chosen shares: (rows, columns) of the patches (``"vision"``), (77 - P,) of the tokens
        (``"text"``).

        Raises:
            CSKTError: this tower has no such layer, head or prompt.
        """
        index = (self.image if tower == "vision" else self.caption).value
        if (tower, index) not in self._maps:
            if len(self._maps) == CACHED_MAPS:
                self._maps.pop(next(iter(self._maps)))
            if tower == "text":
                maps = word_maps(self.model, self.model.tokenize(self.captions[index]))
            else:
                pixels = normalize(torch.tensor(self.images[index]).permute(2, 0, 1)[None])
                maps = prompt_maps(self.model, pixels.to(self.model.backbone.visual.conv1.weight))
            self._maps[tower, index] = maps[0].float().cpu().numpy()
        maps, layer, head, prompt = (
            self._maps[tower, index],
            self.layer.value,
            self.head.value,
            self.prompt.value,
        )
        missing = {
            f"layer {layer}": layer > len(maps),
            f"head {head}": head != "mean" and int(head) > len(maps[0]),
            f"prompt {prompt}": prompt not in self.names[tower],
        }
        if any(missing.values()):
            raise CSKTError(
                f"The {tower} tower has no {' and no '.join(key for key in missing if missing[key])}."
            )
        of_heads = maps[layer - 1, :, self.names[tower].index(prompt)]
        return of_heads.mean(0) if head == "mean" else of_heads[int(head) - 1]

    def tokens(self) -> list[tuple[str, list[int]]]:
        """Words of the chosen caption, then ⟨end⟩, each with the places of its tokens behind the
        prompts."""
        model, decode = self.model, self.model.tokenizer.decode
        ids, end = fit_captions(
            model.tokenize(self.captions[self.caption.value]),
            model.end_token,
            model.backbone.context_length - model.num_prompts,
        )
        words: list[tuple[str, list[int]]] = []
        ids, first = ids[0, 1 : int(end)].tolist(), 0
        for behind, token in enumerate(ids, start=1):
            if decode([token]).endswith(" ") or behind == len(
                ids
            ):  # the last token of a word carries the blank
                words.append((decode(ids[first:behind]).strip(), list(range(first, behind))))
                first = behind
        return [*words, ("⟨end⟩", [len(ids)])]

    def show(self) -> None:
        """Draw what is chosen, or say why there is no such thing."""
        if not self.model.num_prompts:
            self.words.value = "This model has no prompts, so nothing can look at them."
            return
        for output, draw in ((self.picture, self._patches), (self.words, self._words)):
            try:
                output.value = draw()
            except CSKTError as error:
                output.value = html.escape(str(error))

    def _patches(self) -> str:
        shares, label = self.attention("vision"), f"image {self.image.value + 1}"
        (rows, columns), (height, width) = shares.shape, self.model.backbone.visual.patch_size
        shown = image_uri(
            self.images[self.image.value][: rows * height, : columns * width]
        )  # what the patches cover
        uniform = 1 / (1 + shares.size + self.model.num_prompts)
        return (
            f"{self._heading(f'Patches of {label}', shares)}, {shares.min() / uniform:.2f} to "
            f'{shares.max() / uniform:.2f} times the uniform share {uniform:.4f}.<div style="display:flex;'
            f'gap:12px"><img src="{shown}" style="height:320px" alt="{label}">{shaded(shown, shares, f"{label}, shaded by attention")}</div>'
        )

    def _words(self) -> str:
        shares, tokens = self.attention("text"), self.tokens()
        means = np.array([shares[places].mean() for _, places in tokens])
        columns = [
            np.mean(places) + 2 + self.model.num_prompts for _, places in tokens
        ]  # those that a token sees
        spans = "".join(
            f'<span title="{mean * seen:.2f} times the uniform share {1 / seen:.4f}" style="display:inline-block;'
            f'margin:2px;padding:2px 5px;text-align:center;line-height:1.3;background:rgba({HEAT},{opacity:.3f})">'
            f"{html.escape(word)}<br><small>{mean:.4f}</small></span>"
            for (word, _), mean, seen, opacity in zip(
                tokens, means, columns, opacities(means), strict=True
            )
        )
        return f"{self._heading('Words of the caption', means)}.<div>{spans}</div>"

    def _heading(self, what: str, shares: np.ndarray) -> str:
        return (
            f"<b>{what}</b> (layer {self.layer.value}, head {self.head.value}, prompt {self.prompt.value}): "
            f"attention from {shares.min():.4f} {SCALE} to {shares.max():.4f}"
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)


def prompt_view(images: np.ndarray, maps: np.ndarray, names: Sequence[str], title: str = "") -> str:
    """The patches' attention to prompts on a page without Python: html with its style, script and
    data.

    Args: images: (N, H, W, 3) uint8. maps: (N, layers, P, rows, columns), shown to four decimals,
        such as ``prompt_maps(...).mean(2)``. names: of the P prompts, such as
        :func:`cskt.probes.prompt_names`.

    Raises:
        CSKTError: shapes that do not fit, or maps that are not finite.
    """
    _check_images(images)
    maps = np.asarray(maps)
    if maps.ndim != 5 or not maps.size or (len(maps), maps.shape[2]) != (len(images), len(names)):
        raise CSKTError(
            f"maps must be ({len(images)} images, layers, {len(names)} prompts, rows, columns), got "
            f"{maps.shape}."
        )
    if not np.isfinite(maps).all():
        raise CSKTError("maps must be finite.")
    _, layers, _, rows, columns = maps.shape
    counts = (
        np.rint(maps * 1e4).astype(int).reshape(*maps.shape[:3], -1)
    )  # half as long as decimals
    numbers = json.dumps(counts.tolist(), separators=(",", ":"))
    view = f"cskt-view-{zlib.crc32(numbers.encode()):08x}-{next(_views)}"
    thumbnails = "".join(
        f'<label><input type="radio" name="{view}" value="{i}"{" checked" * (i == 0)}><img src="{image_uri(image)}" '
        f'alt="image {i + 1}"></label>'
        for i, image in enumerate(images)
    )
    options = "".join(f"<option>{html.escape(prompt)}</option>" for prompt in names)
    label = html.escape(title or "Attention of patches to prompts")
    return f"""<section class="cskt-view" id="{view}" style="--heat:{HEAT}" aria-label="{label}">
<style>{VIEW_STYLE}</style><b>{label}</b><div role="radiogroup" aria-label="Image">{thumbnails}</div>
<div class="stage"><img alt=""><div style="position:relative"><img alt=""><canvas width="{columns}"
height="{rows}"></canvas></div>
<div><label>Layer <input type="range" min="1" max="{layers}" value="1"> <output></output></label><br>
<label>Prompt <select>{options}</select></label><p aria-live="polite"><span class="shown"></span>:<br>attention from
<span class="low"></span> {SCALE} to <span class="high"></span></p></div></div>
<script>({VIEW_SCRIPT})("{view}", {numbers}, {rows}, {columns}, "{HEAT}", {STRONGEST})</script></section>"""


def _check_images(images: np.ndarray, size: tuple[int, int] | None = None) -> None:
    shape = images.shape if isinstance(images, np.ndarray) and images.dtype == np.uint8 else ()
    if len(shape) != 4 or not len(images) or shape[3] != 3 or size not in (None, shape[1:3]):
        wanted, found = size or ("H", "W"), getattr(images, "dtype", type(images).__name__)
        raise CSKTError(
            f"images must be a uint8 array (N, {wanted[0]}, {wanted[1]}, 3) with N >= 1, got {found} "
            f"{tuple(getattr(images, 'shape', ()))}."
        )
