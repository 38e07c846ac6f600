"""Search to touch: describe a person, see who is found, ask why. Hits as html; the demo of a run
and of a gallery."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import html
import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image

from cskt.errors import CSKTError

from .data.augment import normalize
from .data.datasets import PersonRetrievalDataset, load_dataset
from .data.images import read_image, resize
from .data.pipeline import normalize
from .gallery import MAX_QUERY, THUMBNAIL, Added, Gallery, Hit, check_description
from .model.cskt import CSKT
from .numerics import resolve_device, resolve_precision
from .probes import image_relevance, word_differences
from .runs import Run, build_model

HEAT, STRONGEST = (
    "213,94,0",
    0.75,
)  # Okabe and Ito's vermilion: one hue, safe for the colour-blind, on white and black
SCALE = (
    '<span style="display:inline-block;width:6em;height:0.8em;border:1px solid currentColor;background:'
    f'linear-gradient(to right,transparent,rgba({HEAT},{STRONGEST}))"></span>'
)
MOST, KEPT, LISTED = 50, 20, 10  # hits shown; queries in the history; skipped files that are named
# Only the demo's own elements: a notebook has others. The book's theme pads and rounds images in
# dark mode.
STYLE = """<style>
.cskt-demo button:focus-visible, .cskt-demo input:focus-visible, .cskt-demo select:focus-visible
{ outline: 2px solid currentColor !important; outline-offset: 1px }
.cskt-demo .cskt-panel, .cskt-demo .cskt-said { line-height: 1.5; overflow-wrap: anywhere; white-space: normal }
.cskt-demo .cskt-said img { height: 64px !important; vertical-align: middle; padding: 0 !important }
.cskt-demo .cskt-words { flex: 1 1 220px; columns: 210px; column-gap: 16px; font-size: 12px }
.cskt-demo .cskt-words > div { display: flex; gap: 6px; max-width: 250px; break-inside: avoid; line-height: 18px }
.cskt-demo .cskt-words b { flex: 1 1 70px; text-align: right; font-weight: normal; overflow-wrap: anywhere }
.cskt-demo .cskt-words span { flex: 0 0 76px; position: relative }
.cskt-demo .cskt-words span::after { content: ""; position: absolute; inset: 0 50%; border-left: 1px dotted }
.cskt-demo .cskt-words i { position: absolute; top: 3px; bottom: 3px }
.cskt-demo .cskt-words code { flex: 0 0 46px; background: none; font-size: 12px; text-align: right; color: inherit }
</style>"""


def image_uri(image: np.ndarray | Path, quality: int = 88) -> str:
    """An (H, W, 3) uint8 image, or a JPEG file, as a data address that a page can show without a
    server."""
    if isinstance(image, Path):
        return "data:image/jpeg;base64," + base64.b64encode(image.read_bytes()).decode()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def small_uri(picture: Image.Image, size: tuple[int, int] = THUMBNAIL) -> str:
    """A picture, shrunk to fit ``size``, as a data address."""
    small = picture.convert("RGB")
    small.thumbnail(size)
    return image_uri(np.asarray(small))


def hit_picture(hit: Hit) -> str:
    """A hit's picture as a data address; an empty grey one where both file and thumbnail are
    gone."""
    with contextlib.suppress(OSError):  # another process may delete it
        if hit.thumbnail is not None:
            return image_uri(hit.thumbnail)
    try:
        return small_uri(hit.image())
    except CSKTError:
        return image_uri(np.full((*THUMBNAIL, 3), 160, np.uint8))


def hit_figure(uri: str, rank: int, score: float, label: str, right: bool | None = None) -> str:
    """A hit as html: framed green if it is right, orange if wrong, grey if unknown. The label is
    escaped."""
    colour, mark = {
        True: ("#009e73", "✓ right"),
        False: ("#d55e00", "✗ wrong"),
        None: ("#9aa0a6", ""),
    }[right]
    text = html.escape(f"rank {rank}, {label}, similarity {score:.2f} {mark}".strip())
    return (
        f'<figure style="margin:4px;display:inline-block;text-align:center;line-height:18px"><img src="{uri}" '
        f'alt="{text}" title="{text}" style="border:4px solid {colour};border-radius:4px;height:150px;width:auto;'
        f'max-width:150px;object-fit:contain"><figcaption style="font-size:12px;margin:0">{rank} · {score:.2f} '
        f"{mark}</figcaption></figure>"
    )


def hit_strip(
    images: Sequence[np.ndarray],
    scores: Sequence[float],
    labels: Sequence[str],
    correct: Sequence[bool | None] | None = None,
) -> str:
    """Ranked hits as html: right ones framed green, wrong ones orange, unknown ones grey. All text
    is escaped."""
    figures = [
        hit_figure(
            image_uri(image), rank + 1, score, label, None if correct is None else correct[rank]
        )
        for rank, (image, score, label) in enumerate(zip(images, scores, labels, strict=True))
    ]
    return f'<div class="cskt-hits">{"".join(figures)}</div>'


def contact_sheet(query: str, hits: Sequence[Hit], remarks: Sequence[str] = ()) -> str:
    """A page of its own that shows what was asked and found, pictures included. All text is
    escaped."""
    figures = "".join(
        f'<figure><img src="{hit_picture(hit)}" alt="{html.escape(hit.label())}"><figcaption>{rank} · {hit.score:.3f}'
        f"<br>{html.escape(hit.label())}<br><small>{html.escape(hit.source)}</small></figcaption></figure>"
        for rank, hit in enumerate(hits, start=1)
    )
    said = "".join(f"<p>{html.escape(remark)}</p>" for remark in remarks)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(query)}</title>
<meta name="viewport" content="width=device-width"><style>:root {{ color-scheme: light dark; font: 15px system-ui }}
main {{ display: flex; flex-wrap: wrap; gap: 12px }} figure {{ margin: 0; width: 150px; overflow-wrap: anywhere }}
img {{ height: 192px; max-width: 100%; border-radius: 4px }} small {{ opacity: 0.7 }}</style>
<h1>{html.escape(query)}</h1>{said}<main>{figures}</main></html>
"""


def opacities(shares: np.ndarray) -> np.ndarray:
    """How opaque shares are drawn: clear at the lowest, and everywhere where they are alike."""
    return STRONGEST * (shares - shares.min()) / (np.ptp(shares) or 1)


def shaded(uri: str, shares: np.ndarray | None, label: str, height: int = 320) -> str:
    """A picture as html, under a grid of heat (rows, columns) that covers it (None: bare). The
    label is escaped."""
    cells = grid = ""
    if shares is not None:
        rows, columns = shares.shape
        grid = (
            f'<div style="position:absolute;inset:0;display:grid;grid-template:repeat({rows},1fr)/'
            f'repeat({columns},1fr)">'
        )
        cells = (
            "".join(
                f'<div title="{share:.4f}" style="background:rgba({HEAT},{opacity:.3f})"></div>'
                for share, opacity in zip(shares.flat, opacities(shares).flat, strict=True)
            )
            + "</div>"
        )
    return (
        f'<div style="position:relative;align-self:flex-start"><img src="{uri}" style="display:block;height:'
        f'{height}px;width:auto;max-width:none" alt="{html.escape(label)}">{grid}{cells}</div>'
    )


def word_bars(effects: Sequence[tuple[str, float]]) -> str:
    """Words and what each adds, as html: bars to the right for what raises, to the left for what
    lowers."""
    most, rows = max((abs(value) for _, value in effects), default=0) or 1, []
    for word, value in effects:
        width, colour = 50 * abs(value) / most, f"rgb({HEAT})" if value >= 0 else "#7a8794"
        left = 50 if value >= 0 else 50 - width
        rows.append(
            f'<div><b>{html.escape(word)}</b><span><i style="left:{left:.1f}%;width:{width:.1f}%;'
            f'background:{colour}"></i></span><code>{value:+.3f}</code></div>'
        )
    return f'<div class="cskt-words">{"".join(rows)}</div>'


@dataclass(frozen=True)
class Asked:
    """A query that could be understood: its name in the history, its vector for each gallery, the
    description if it is one, the identities that are right if they are known, the picture (a data
    address) if it is one; ``words`` keeps what its words add, by gallery, once that has been
    computed."""

    label: str
    vectors: Mapping[str, np.ndarray]
    text: str = ""
    right: Collection[int] | None = None
    picture: str = ""
    words: dict[str, np.ndarray] = field(default_factory=dict)


def _plainly(act: Callable[..., None]) -> Callable[..., None]:
    """What cannot be done is said in a sentence, and what is shown stays."""

    @functools.wraps(act)
    def attempt(self: RetrievalDemo, *arguments: Any) -> None:
        try:
            act(self, *arguments)
        except CSKTError as error:
            self.say([f"Not done: {error}"])
        except Exception as error:  # a page without a notebook would never show it
            self.say([f"This failed and should not have: {type(error).__name__}: {error}"])
            raise

    return attempt


class RetrievalDemo:
    """Search by description or picture in one gallery, or in several over the same images side by
    side.

    ``truth``: the identities that are right for a description, where known. ``note`` stands above
    the results.

    Every action is a method: :meth:`ask`, :meth:`ask_picture`, :meth:`explain`, :meth:`add` and
    :meth:`show`. None of them raises :class:`CSKTError`: ``message`` says what is wrong, and what
    was shown stays.
    """

    def __init__(
        self,
        galleries: Mapping[str, Gallery],
        examples: Iterable[str] = (),
        truth: Mapping[str, Collection[int]] | None = None,
        note: str = "",
    ) -> None:
        if not galleries:
            raise CSKTError("the demo needs at least one gallery.")
        self.galleries, self.note, names = dict(galleries), note, list(galleries)
        self.truth = {" ".join(text.split()): set(right) for text, right in (truth or {}).items()}
        self.asked: Asked | None = None
        self.history: dict[str, Asked] = {}
        self.found: dict[str, list[Hit]] = {}
        wide, button = widgets.Layout(width="min(760px, 98%)"), widgets.Layout(width="auto")
        texts = [" ".join(text.split()) for text in examples]
        self.examples = widgets.Dropdown(
            options=[("choose an example …", ""), *((e[:110], e) for e in texts)],
            description="Example",
            layout=wide,
        )
        # Changes when Enter is pressed or the box is left: what is typed is never cut short by a
        # search.
        self.query = widgets.Text(
            placeholder="a woman in a red coat with a black backpack",
            description="Describe",
            continuous_update=False,
            layout=widgets.Layout(flex="1 1 300px", max_width="760px"),
        )
        self.button = widgets.Button(
            description="Search", button_style="primary", icon="search", layout=button
        )
        self.hits = widgets.BoundedIntText(
            value=10, min=1, max=MOST, description="Hits", layout=widgets.Layout(width="150px")
        )
        self.camera = widgets.Dropdown(
            options=[("all", None)], description="Camera", layout=widgets.Layout(width="210px")
        )
        both = [("side by side", names)] * (len(names) > 1)
        self.sides = widgets.Dropdown(
            options=[*both, *((name, [name]) for name in names)],
            description="Model",
            layout=widgets.Layout(width="240px"),
        )
        self.earlier = widgets.Dropdown(options=[], description="Earlier", layout=wide)
        self.upload = widgets.FileUpload(
            accept="image/*",
            multiple=False,
            description="Search by picture",
            tooltip="Find people who look like the one in a picture",
            layout=button,
        )
        self.folder = widgets.Text(
            placeholder="folder with images on this machine",
            description="Folder",
            layout=widgets.Layout(width="min(420px, 98%)"),
        )
        self.adder = widgets.Button(
            description="Add folder",
            icon="plus",
            layout=button,
            tooltip="Add the images in this folder, and below it, to the gallery",
        )
        self.message, self.heading = widgets.HTML(), widgets.HTML()
        self.views = {name: _Side(name if len(names) > 1 else "", self) for name in names}
        self.results = widgets.Box(layout=widgets.Layout(flex_flow="row wrap", width="100%"))

        def row(*children: widgets.Widget) -> widgets.Box:
            return widgets.Box(
                children, layout=widgets.Layout(flex_flow="row wrap", align_items="center")
            )

        self.widget = widgets.VBox(
            [
                widgets.HTML(STYLE),
                *[self.examples] * bool(texts),
                row(self.query, self.button),
                row(self.hits, self.camera, *[self.sides] * (len(names) > 1), self.upload),
                self.earlier,
                row(self.folder, self.adder),
                self.message,
                self.heading,
                self.results,
            ]
        )
        self.widget.add_class("cskt-demo")
        self._list_cameras()
        self.button.on_click(lambda _: self.ask(self.query.value))
        self.query.observe(lambda change: self._ask_new(change["new"]), names="value")
        self.examples.observe(
            lambda change: change["new"] and self._ask_new(change["new"]), names="value"
        )
        self.earlier.observe(self._ask_again, names="value")
        self.upload.observe(self._take_upload, names="value")
        self.adder.on_click(lambda _: self.add(self.folder.value))
        for control in (self.hits, self.camera, self.sides):
            control.observe(lambda _: self.show(), names="value")

    @_plainly
    def ask(self, query: str | Hit | Image.Image, name: str = "picture") -> None:
        """Search for a description, for more like a hit, or for a picture (``name``: what to call
        it)."""
        text = check_description(query) if isinstance(query, str) else ""
        vectors = {side: gallery.encode(query) for side, gallery in self.galleries.items()}
        if text:
            self.show(Asked(f"“{text}”", vectors, text, self.truth.get(text)))
        elif isinstance(query, Hit):
            right = None if query.identity is None else {query.identity}
            self.show(
                Asked(
                    f"more like {query.label()}", vectors, right=right, picture=hit_picture(query)
                )
            )
        else:
            self.show(Asked(f"more like {name}", vectors, picture=small_uri(query)))

    @_plainly
    def ask_picture(self, name: str, content: bytes) -> None:
        """Search for a picture as it lies in a file."""
        try:
            picture = read_image(io.BytesIO(content))
        except CSKTError as error:
            raise CSKTError(
                f"{name}: {error}; choose a picture, such as a JPEG or PNG file."
            ) from error
        self.ask(picture, name)

    @_plainly
    def show(self, asked: Asked | None = None) -> None:
        """What is found for a query (None: the present one), as hits, camera and model are set."""
        asked = asked or self.asked
        if asked is None:
            return
        k, camera = self.hits.value, self.camera.value
        where = "" if camera is None else f"camera == {json.dumps(camera, ensure_ascii=False)}"
        found = {
            name: self.galleries[name].search(asked.vectors[name], k, where)
            for name in self.sides.value
        }
        remarks = {
            name: self._remarks(name, asked, k, len(hits), where) for name, hits in found.items()
        }
        # Nothing has failed: only now is what was shown replaced.
        self.asked, self.found = asked, found
        self._remember(asked)
        picture = (
            f'<img src="{asked.picture}" alt="the picture searched for"> ' if asked.picture else ""
        )
        self.heading.value = (
            f'<div class="cskt-said">{picture}<b>{html.escape(asked.label)}</b>'
            f"{html.escape(f' ({self.note})' if self.note else '')}</div>"
        )
        for name, hits in found.items():
            self.views[name].fill(hits, asked.right)
        self.results.children = [self.views[name].widget for name in found]
        self.say(_by_side(remarks))
        self.explain()

    @_plainly
    def explain(self, chosen: Hit | None = None) -> None:
        """What each word adds to the similarity of a hit, in each gallery, and where in its picture
        the similarity comes from; without one, only the words, for each gallery's best hit."""
        for name, hits in self.found.items():
            try:
                hit = chosen or next(iter(hits), None)
                self.views[name].panel.value = (
                    self._panel(name, hit, chosen is not None) if hit else ""
                )
            except CSKTError as error:
                self.views[name].panel.value = html.escape(str(error))

    @_plainly
    def add(self, folder: str) -> None:
        """Add the images of a folder to every gallery, saying how far it is and what was
        skipped."""
        if not folder.strip():
            raise CSKTError("name a folder with images first.")
        self.adder.disabled, done = True, {}
        try:
            for name, gallery in self.galleries.items():
                self.say([f"Reading {folder} …"])
                done[name] = gallery.add(
                    folder.strip(),
                    on_batch=lambda at, of, name=name: self.say(
                        [f"{name}: {at:,} of {of:,} files read …"]
                    ),
                )
        finally:
            self.adder.disabled = False
        self._list_cameras()
        self.show()
        self.say(_by_side({name: _report(added) for name, added in done.items()}))

    def say(self, sentences: Iterable[str]) -> None:
        """Put sentences into ``message``, escaped."""
        lines = "<br>".join(map(html.escape, sentences))
        self.message.value = f'<div class="cskt-said" role="status">{lines}</div>'

    def relevance(self, name: str, hit: Hit) -> np.ndarray:
        """(rows, columns): where in a hit's picture its similarity to the present query comes from,
        in a gallery."""
        model = self.galleries[name].model
        pixels = torch.tensor(resize(hit.image(), model.image_size))[None]
        direction = torch.from_numpy(self.asked.vectors[name])[None].to(model.device)
        return image_relevance(model, normalize(pixels), direction)[0].cpu().numpy()

    def word_effects(self, name: str, hit: Hit) -> list[tuple[str, float]]:
        """Each word of the present description with the similarity to a hit that is lost without
        it; [] if it is a picture."""
        gallery, asked = self.galleries[name], self.asked
        if asked.text and name not in asked.words:
            asked.words[name] = word_differences(gallery.model, asked.text).cpu().numpy()
        return (
            list(
                zip(
                    asked.text.split(),
                    (asked.words[name] @ gallery.encode(hit)).tolist(),
                    strict=True,
                )
            )
            if asked.text
            else []
        )

    def _panel(self, name: str, hit: Hit, mapped: bool) -> str:
        gallery, asked, place, picture = (
            self.galleries[name],
            self.asked,
            [each.id for each in self.found[name]],
            "",
        )
        rank = f"rank {place.index(hit.id) + 1}" if hit.id in place else "not among the hits"
        score = float(gallery.encode(hit) @ asked.vectors[name])
        if mapped:
            model, whole = gallery.model, hit.image()
            (rows, columns), (height, width) = (
                model.backbone.visual.grid_size,
                model.backbone.visual.patch_size,
            )
            covered = whole.crop(
                (
                    0,
                    0,
                    whole.width * columns * width // model.image_size[1],
                    whole.height * rows * height // model.image_size[0],
                )
            )
            picture = shaded(
                small_uri(covered, (512, 512)),
                self.relevance(name, hit),
                f"{rank}, {hit.label()}, shaded where the similarity comes from",
                256,
            )
        words = (
            ""
            if not asked.text
            else (
                "<br>What each word adds to the similarity (all of it less that without the word):"
            )
        )
        told = (
            ""
            if mapped
            else ("<br>" if not words else " ") + "“Map” shows where in a picture it comes from."
        )
        bars = word_bars(self.word_effects(name, hit)) if asked.text else ""
        return (
            f'<div class="cskt-panel"><b>{rank}</b>, {html.escape(hit.label())}: similarity {score:.3f}.{words}'
            f'{told}<div style="display:flex;flex-wrap:wrap;gap:12px;margin-top:6px">{picture}{bars}</div></div>'
        )

    def _remarks(self, name: str, asked: Asked, k: int, found: int, where: str) -> list[str]:
        gallery = self.galleries[name]
        said = gallery.remarks(asked.text) if asked.text else []
        if found < k:
            said.append(
                f"Only {found} images fit the filter."
                if where
                else f"The gallery holds only {found} images."
            )
        return said

    def _remember(self, asked: Asked) -> None:
        if asked.text:
            self.query.value = asked.text
        self.examples.value = (
            asked.text if asked.text in [value for _, value in self.examples.options] else ""
        )
        new = asked.label not in self.history
        self.history[asked.label] = asked
        if new:
            if len(self.history) > KEPT:
                del self.history[next(iter(self.history))]
            self.earlier.options = [(label[:110], label) for label in reversed(self.history)]
        self.earlier.value = asked.label

    def _ask_new(self, text: str) -> None:
        if self.asked is None or text != self.asked.text:  # else the box only follows what is shown
            self.ask(text)

    def _ask_again(self, change: dict) -> None:
        if change["new"] is not None and change["new"] != self.asked.label:
            self.show(self.history[change["new"]])

    def _take_upload(self, change: dict) -> None:
        if change["new"]:
            file = change["new"][0]
            self.upload.value = ()  # so that the same file can be chosen again
            self.ask_picture(file["name"], bytes(file["content"]))

    def _list_cameras(self) -> None:
        cameras, chosen = next(iter(self.galleries.values())).values("camera"), self.camera.value
        self.camera.options = [("all", None), *((camera, camera) for camera in cameras)]
        self.camera.value = chosen if chosen in cameras else None

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)


class _Side:
    """The hits in one gallery, as cards, and what is told of one of them."""

    def __init__(self, name: str, demo: RetrievalDemo) -> None:
        self.demo, self.cards = demo, []
        self.box = widgets.Box(layout=widgets.Layout(flex_flow="row wrap"))
        self.panel = widgets.HTML()
        heading = [widgets.HTML(f"<b>{html.escape(name)}</b>")] * bool(name)
        self.widget = widgets.VBox(
            [*heading, self.box, self.panel],
            layout=widgets.Layout(flex="1 1 440px", min_width="0", padding="0 8px 0 0"),
        )

    def fill(self, hits: Sequence[Hit], right: Collection[int] | None) -> None:
        """Show hits; cards are kept from one search to the next, as new ones take the browser
        longer."""
        self.cards += [_Card(self.demo) for _ in range(len(hits) - len(self.cards))]
        for rank, (card, hit) in enumerate(zip(self.cards, hits, strict=False), start=1):
            card.fill(
                rank, hit, None if right is None or hit.identity is None else hit.identity in right
            )
        self.box.children = [card.widget for card in self.cards[: len(hits)]]


class _Card:
    """A hit: its picture, and buttons for what can be asked of it."""

    def __init__(self, demo: RetrievalDemo) -> None:
        self.hit: Hit | None = None
        self.picture, layout = widgets.HTML(), widgets.Layout(width="104px", height="24px")
        self.map = widgets.Button(description="map", layout=layout)
        self.more = widgets.Button(description="more like this", layout=layout)
        for button in (self.map, self.more):
            button.style.font_size = "12px"
        self.map.on_click(lambda _: demo.explain(self.hit))
        self.more.on_click(lambda _: demo.ask(self.hit))
        self.widget = widgets.VBox(
            [self.picture, self.map, self.more],
            layout=widgets.Layout(align_items="center", margin="0 0 8px"),
        )

    def fill(self, rank: int, hit: Hit, right: bool | None) -> None:
        self.hit = hit
        self.picture.value = hit_figure(hit_picture(hit), rank, hit.score, hit.label(), right)
        self.map.tooltip = f"Where in the picture at rank {rank} the similarity comes from"
        self.more.tooltip = f"Search for more like the picture at rank {rank}"


def _report(added: Added) -> list[str]:
    said = [
        f"{added.added} images added, {added.known} known already, {len(added.skipped)} files skipped."
    ]
    said += [f"Skipped {file}: {why}." for file, why in list(added.skipped.items())[:LISTED]]
    return said + [f"… and {len(added.skipped) - LISTED} more."] * (len(added.skipped) > LISTED)


def _by_side(said: Mapping[str, Sequence[str]]) -> list[str]:
    """Each sentence once, with the names of the galleries that it holds for unless it holds for
    all."""
    sentences = dict.fromkeys(sentence for each in said.values() for sentence in each)
    names = {
        sentence: [name for name, each in said.items() if sentence in each]
        for sentence in sentences
    }
    return [
        sentence
        if len(names[sentence]) == len(said)
        else f"{' and '.join(names[sentence])}: {sentence}"
        for sentence in sentences
    ]


def run_demo(
    run: Run, data: PersonRetrievalDataset | None = None, examples: int = 8
) -> RetrievalDemo:
    """The demo of a run: its model and the one before training, side by side over the test images
    of a data set (None: the run's own), with so many captions as examples and all of them as truth.

    The galleries are kept in the run's folder, so that images are encoded only once.
    """
    data = data or load_dataset(run.config.dataset, run.config.data_root)
    models: dict[str, CSKT] = {
        "CSKT" if run.config.method == "cskt" else run.config.method: run.load_model()
    }
    if "zero-shot" not in models:
        models["zero-shot"] = build_model(dataclasses.replace(run.config, method="zero-shot"))
    galleries, test = {}, data.test
    for name, model in models.items():
        model.to(resolve_device(run.config.device)).eval()
        precision = resolve_precision(run.config.precision, model.device.type)
        place = (
            run.folder
            / f"gallery-{name}-{model.fingerprint()[:8]}-{data.fingerprint[:8]}-{precision}.db"
        )
        galleries[name] = Gallery(place, model, name="grown", precision=precision)
        if len(galleries[name]) < len(test.image_paths):
            galleries[name].add(test)
    truth: dict[str, set[int]] = {}
    for caption, identity in zip(test.captions, test.caption_identities.tolist(), strict=True):
        truth.setdefault(caption, set()).add(identity)
    fit = [caption for caption in truth if len(caption) <= MAX_QUERY]
    picked = np.random.default_rng(run.config.seed + 1).permutation(len(fit))[:examples]
    note = f"{len(test.image_paths):,} test images of {data.name}{', synthetic' if data.synthetic else ''}"
    return RetrievalDemo(galleries, [fit[index] for index in picked], truth, note)


def gallery_demo(uri: str) -> RetrievalDemo:
    """The demo of a gallery that ``python -m cskt index`` has made; :class:`CSKTError` where there
    is none."""
    gallery = Gallery(uri, create=False)
    return RetrievalDemo({Path(uri).name: gallery}, note=f"{len(gallery):,} images of {uri}")
