"""What a reader can touch: retrieval and the attention to prompts, in a notebook and on a static page."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image

from .config import CSKTError
from .data.pipeline import normalize
from .gallery import MAX_QUERY, THUMBNAIL, Hit
from .model.cskt import CSKT, fit_captions
from .probes import prompt_maps, prompt_names, word_maps

CACHED_MAPS = 64  # of images and captions; an image's take about a megabyte in a ViT-B/16
HEAT, STRONGEST = "213,94,0", 0.75  # Okabe and Ito's vermilion: one hue, safe for the colour-blind, on white and black
SCALE = ('<span style="display:inline-block;width:6em;height:0.8em;border:1px solid currentColor;background:'
         f'linear-gradient(to right,transparent,rgba({HEAT},{STRONGEST}))"></span>')
# The book's theme pads and rounds images in dark mode, which would move them from under the heat: hence !important.
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


def image_uri(image: np.ndarray | Path, quality: int = 88) -> str:
    """An (H, W, 3) uint8 image, or a JPEG file, as a data address that a page can show without a server."""
    if isinstance(image, Path):
        return "data:image/jpeg;base64," + base64.b64encode(image.read_bytes()).decode()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def hit_strip(images: Sequence[np.ndarray], scores: Sequence[float], labels: Sequence[str],
              correct: Sequence[bool | None] | None = None) -> str:
    """Ranked hits as html: right ones framed green, wrong ones orange, unknown ones grey. All text is escaped."""
    figures = []
    for rank, (image, score, label) in enumerate(zip(images, scores, labels, strict=True), start=1):
        right = correct[rank - 1] if correct is not None else None
        colour, mark = {True: ("#009e73", "✓ right"), False: ("#d55e00", "✗ wrong"), None: ("#9aa0a6", "")}[right]
        text = html.escape(f"rank {rank}, {label}, similarity {score:.2f} {mark}".strip())
        figures.append(
            f'<figure style="margin:4px;display:inline-block;text-align:center"><img src="{image_uri(image)}" '
            f'alt="{text}" title="{text}" style="border:4px solid {colour};border-radius:4px;height:150px;width:auto">'
            f'<figcaption style="font-size:12px">{rank} · {score:.2f} {mark[:1]}</figcaption></figure>')
    return f'<div class="cskt-hits">{"".join(figures)}</div>'


def contact_sheet(query: str, hits: Sequence[Hit], remarks: Sequence[str] = ()) -> str:
    """A page of its own that shows what was asked and found, pictures included. All text is escaped."""
    figures = "".join(
        f'<figure><img src="{hit_picture(hit)}" alt="{html.escape(hit.label())}"><figcaption>{rank} · {hit.score:.3f}'
        f"<br>{html.escape(hit.label())}<br><small>{html.escape(hit.source)}</small></figcaption></figure>"
        for rank, hit in enumerate(hits, start=1))
    said = "".join(f"<p>{html.escape(remark)}</p>" for remark in remarks)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(query)}</title>
<meta name="viewport" content="width=device-width"><style>:root {{ color-scheme: light dark; font: 15px system-ui }}
main {{ display: flex; flex-wrap: wrap; gap: 12px }} figure {{ margin: 0; width: 150px; overflow-wrap: anywhere }}
img {{ height: 192px; max-width: 100%; border-radius: 4px }} small {{ opacity: 0.7 }}</style>
<h1>{html.escape(query)}</h1>{said}<main>{figures}</main></html>
"""


def hit_picture(hit: Hit) -> str:
    """A hit's picture as a data address; an empty grey one where both file and thumbnail are gone."""
    if hit.thumbnail is not None:
        return image_uri(hit.thumbnail)
    try:
        picture = hit.image().convert("RGB")
        picture.thumbnail(THUMBNAIL)
        return image_uri(np.asarray(picture))
    except CSKTError:
        return image_uri(np.full((*THUMBNAIL, 3), 160, np.uint8))


class RetrievalDemo:
    """A text box, a number of hits and a search button over an embedded gallery.

    Args:
        model: encodes the query.
        image_features: (N, D) L2-normalised, of the gallery.
        images: (N, H, W, 3) uint8.
        labels: a short text per image, shown with the hit.
        examples: descriptions to choose from.
    """

    def __init__(self, model: CSKT, image_features: torch.Tensor, images: np.ndarray, labels: Sequence[str],
                 examples: Sequence[str] = ()) -> None:
        if not len(image_features) == len(images) == len(labels) or not len(images):
            raise CSKTError(f"the gallery needs as many features as images and labels, got {len(image_features)}, "
                            f"{len(images)} and {len(labels)}.")
        self.model, self.features, self.images, self.labels = model, image_features, images, labels
        self.query = widgets.Textarea(placeholder="a woman in a red coat with a black backpack", rows=2,
                                      description="Describe", layout=widgets.Layout(width="min(640px, 95%)"))
        self.examples = widgets.Dropdown(options=[("choose an example …", ""), *((e[:90], e) for e in examples)],
                                         description="Example", layout=widgets.Layout(width="min(640px, 95%)"))
        self.hits = widgets.BoundedIntText(value=10, min=1, max=min(50, len(images)), description="Hits",
                                           layout=widgets.Layout(width="160px"))
        self.button = widgets.Button(description="Search", button_style="primary", icon="search")
        self.message, self.output = widgets.HTML(), widgets.HTML()
        self.button.on_click(lambda _: self.show())
        self.examples.observe(self._use_example, names="value")
        self.widget = widgets.VBox([self.examples, self.query, widgets.HBox([self.hits, self.button]), self.message,
                                    self.output])

    def _use_example(self, change: dict) -> None:
        if change["new"]:
            self.query.value = change["new"]
            self.show()

    @torch.inference_mode()
    def search(self, text: str, k: int) -> tuple[list[int], list[float]]:
        """The ``k`` best gallery images for a description and their cosine similarities, best first.

        Raises:
            CSKTError: an empty or over-long description.
        """
        text = " ".join(text.split())
        if not text:
            raise CSKTError("Type a description first, for example: a man in a grey hoodie with a red backpack.")
        if len(text) > MAX_QUERY:
            raise CSKTError(f"The description has {len(text)} characters; shorten it to {MAX_QUERY}.")
        feature = self.model.encode_text(self.model.tokenize([text]), normalize=True)
        scores, order = torch.topk((self.features @ feature.T.to(self.features))[:, 0], min(k, len(self.images)))
        return order.tolist(), scores.tolist()

    def show(self) -> None:
        """Search for what is in the text box and show the hits, or say why not."""
        try:
            order, scores = self.search(self.query.value, self.hits.value)
        except CSKTError as error:
            self.message.value, self.output.value = html.escape(str(error)), ""
            return
        unknown = self.model.unknown_words(self.query.value)
        self.message.value = html.escape(f"This backbone has never seen: {', '.join(unknown)}.") if unknown else ""
        self.output.value = hit_strip([self.images[i] for i in order], scores, [self.labels[i] for i in order])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)


def example_browser(queries: Sequence[str], pages: Sequence[str]) -> widgets.VBox:
    """Precomputed results behind a drop-down; alive on a static page too, as the link runs in the browser."""
    if len(queries) != len(pages) or not queries:
        raise CSKTError(f"the browser needs one page per query, got {len(queries)} queries and {len(pages)} pages.")
    chooser = widgets.Dropdown(options=[(query[:110], index) for index, query in enumerate(queries)], index=0,
                               description="Query", layout=widgets.Layout(width="95%"))
    stack = widgets.Stack([widgets.HTML(page) for page in pages], selected_index=0)
    widgets.jslink((chooser, "index"), (stack, "selected_index"))
    return widgets.VBox([chooser, stack])


class PromptExplorer:
    """Who looks at a prompt: patches of an image and words of a caption, by layer, head and prompt, counted from 1.

    Args:
        model: one without prompts shows a sentence that says so.
        images: (N, H, W, 3) uint8, of ``model.image_size``.
        captions: at least one.

    Raises:
        CSKTError: no or unfit images or captions, or a tokenizer that cannot give back the words.
    """

    def __init__(self, model: CSKT, images: np.ndarray, captions: Sequence[str]) -> None:
        _check_images(images, model.image_size)
        if isinstance(captions, str) or not len(captions) or not all(isinstance(text, str) for text in captions):
            raise CSKTError("captions must be a list of at least one str.")
        if not hasattr(model.tokenizer, "decode"):  # those of other languages split words in ways of their own
            raise CSKTError("this backbone's tokenizer is not CLIP's, so words cannot be told; use another backbone.")
        self.model, self.images, self.captions = model, images, list(captions)
        self._maps: dict[tuple[str, int], np.ndarray] = {}
        self.picture, self.words = widgets.HTML(), widgets.HTML()
        self.names = {tower: prompt_names(model, tower) for tower in ("text", "vision")}
        blocks = [tower.transformer.resblocks for tower in (model.backbone.visual, model.backbone)]
        self.image = widgets.Dropdown(options=[(f"image {i + 1}", i) for i in range(len(images))], description="Image")
        self.caption = widgets.Dropdown(options=[(f"{i + 1}: {text[:110]}", i) for i, text in enumerate(captions)],
                                        description="Caption", layout=widgets.Layout(width="min(640px, 95%)"))
        self.layer = widgets.IntSlider(value=1, min=1, max=max(map(len, blocks)), description="Layer")
        heads = range(1, 1 + max(tower[0].attn.num_heads for tower in blocks))
        self.head = widgets.Dropdown(options=["mean", *map(str, heads)], description="Head")
        names = dict.fromkeys(itertools.chain(*self.names.values()))
        self.prompt = widgets.Dropdown(options=list(names), description="Prompt")
        controls = [self.image, self.caption, self.layer, self.head, self.prompt] if model.num_prompts else []
        for control in controls:
            control.observe(lambda _: self.show(), names="value")
        self.widget = widgets.VBox([*controls, self.picture, self.words])
        self.show()

    def attention(self, tower: str) -> np.ndarray:
        """The chosen shares: (rows, columns) of the patches (``"vision"``), (77 - P,) of the tokens (``"text"``).

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
        maps, layer, head, prompt = self._maps[tower, index], self.layer.value, self.head.value, self.prompt.value
        missing = {f"layer {layer}": layer > len(maps), f"head {head}": head != "mean" and int(head) > len(maps[0]),
                   f"prompt {prompt}": prompt not in self.names[tower]}
        if any(missing.values()):
            raise CSKTError(f"The {tower} tower has no {' and no '.join(key for key in missing if missing[key])}.")
        of_heads = maps[layer - 1, :, self.names[tower].index(prompt)]
        return of_heads.mean(0) if head == "mean" else of_heads[int(head) - 1]

    def tokens(self) -> list[tuple[str, list[int]]]:
        """Words of the chosen caption, then ⟨end⟩, each with the places of its tokens behind the prompts."""
        model, decode = self.model, self.model.tokenizer.decode
        ids, end = fit_captions(model.tokenize(self.captions[self.caption.value]), model.end_token,
                                model.backbone.context_length - model.num_prompts)
        words: list[tuple[str, list[int]]] = []
        ids, first = ids[0, 1 : int(end)].tolist(), 0
        for behind, token in enumerate(ids, start=1):
            if decode([token]).endswith(" ") or behind == len(ids):  # the last token of a word carries the blank
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
        shown = image_uri(self.images[self.image.value][: rows * height, : columns * width])  # what the patches cover
        image = f'<img src="{shown}" style="display:block;height:320px;width:auto;max-width:none" alt="{label}'
        cells = "".join(f'<div title="{share:.4f}" style="background:rgba({HEAT},{opacity:.3f})"></div>'
                        for share, opacity in zip(shares.flat, _opacities(shares).flat, strict=True))
        uniform = 1 / (1 + shares.size + self.model.num_prompts)
        return (f'{self._heading(f"Patches of {label}", shares)}, {shares.min() / uniform:.2f} to '
                f'{shares.max() / uniform:.2f} times the uniform share {uniform:.4f}.<div style="display:flex;'
                f'gap:12px">{image}"><div style="position:relative">{image}, shaded by attention"><div style="'
                f'position:absolute;inset:0;display:grid;grid-template:repeat({rows},1fr)/repeat({columns},1fr)">'
                f'{cells}</div></div></div>')

    def _words(self) -> str:
        shares, tokens = self.attention("text"), self.tokens()
        means = np.array([shares[places].mean() for _, places in tokens])
        columns = [np.mean(places) + 2 + self.model.num_prompts for _, places in tokens]  # those that a token sees
        spans = "".join(
            f'<span title="{mean * seen:.2f} times the uniform share {1 / seen:.4f}" style="display:inline-block;'
            f'margin:2px;padding:2px 5px;text-align:center;line-height:1.3;background:rgba({HEAT},{opacity:.3f})">'
            f'{html.escape(word)}<br><small>{mean:.4f}</small></span>'
            for (word, _), mean, seen, opacity in zip(tokens, means, columns, _opacities(means), strict=True))
        return f'{self._heading("Words of the caption", means)}.<div>{spans}</div>'

    def _heading(self, what: str, shares: np.ndarray) -> str:
        return (f"<b>{what}</b> (layer {self.layer.value}, head {self.head.value}, prompt {self.prompt.value}): "
                f"attention from {shares.min():.4f} {SCALE} to {shares.max():.4f}")

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)


def prompt_view(images: np.ndarray, maps: np.ndarray, names: Sequence[str], title: str = "") -> str:
    """The patches' attention to prompts on a page without Python: html with its style, script and data.

    Args:
        images: (N, H, W, 3) uint8.
        maps: (N, layers, P, rows, columns), shown to four decimals, such as ``prompt_maps(...).mean(2)``.
        names: of the P prompts, such as :func:`cskt.probes.prompt_names`.

    Raises:
        CSKTError: shapes that do not fit, or maps that are not finite.
    """
    _check_images(images)
    maps = np.asarray(maps)
    if maps.ndim != 5 or not maps.size or (len(maps), maps.shape[2]) != (len(images), len(names)):
        raise CSKTError(f"maps must be ({len(images)} images, layers, {len(names)} prompts, rows, columns), got "
                        f"{maps.shape}.")
    if not np.isfinite(maps).all():
        raise CSKTError("maps must be finite.")
    _, layers, _, rows, columns = maps.shape
    counts = np.rint(maps * 1e4).astype(int).reshape(*maps.shape[:3], -1)  # half as long as decimals
    numbers = json.dumps(counts.tolist(), separators=(",", ":"))
    view = f"cskt-view-{zlib.crc32(numbers.encode()):08x}-{next(_views)}"
    thumbnails = "".join(
        f'<label><input type="radio" name="{view}" value="{i}"{" checked" * (i == 0)}><img src="{image_uri(image)}" '
        f'alt="image {i + 1}"></label>' for i, image in enumerate(images))
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
        raise CSKTError(f"images must be a uint8 array (N, {wanted[0]}, {wanted[1]}, 3) with N >= 1, got {found} "
                        f"{tuple(getattr(images, 'shape', ()))}.")


def _opacities(shares: np.ndarray) -> np.ndarray:
    """How opaque shares are drawn: clear at the lowest, and everywhere where they are alike."""
    return STRONGEST * (shares - shares.min()) / (np.ptp(shares) or 1)
