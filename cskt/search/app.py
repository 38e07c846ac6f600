"""Search to touch, in a notebook or served by Voila: describe a person, see who is found, ask why.

The only module with ipywidgets.
"""

from __future__ import annotations

import functools
import html
import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cskt.data.datasets import PersonRetrievalDataset, load_dataset
from cskt.data.images import read_image
from cskt.errors import ConfigurationError, CSKTError, DataError
from cskt.extras import extra
from cskt.runs import Run
from cskt.search.gallery import Gallery
from cskt.search.hits import Hit, hit_figure, hit_picture
from cskt.search.question import Question, by_gallery, explanation, question, remarks_on, report
from cskt.search.run_gallery import example_captions, right_identities, run_galleries

with extra("book"):
    import ipywidgets as widgets
    from ipywidgets import Layout

MOST = 50  # hits shown
LONGEST = 110  # characters of a query in a list
STYLE = Path(__file__).parent / "web" / "demo.css"


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
            raise ConfigurationError("the demo needs at least one gallery.")
        self.galleries = dict(galleries)
        self.note = note
        self.truth: dict[str, set[int]] = {}
        for text, identities in (truth or {}).items():
            self.truth[" ".join(text.split())] = set(identities)
        self.asked: Question | None = None
        self.found: dict[str, list[Hit]] = {}
        self._make_query_controls([" ".join(text.split()) for text in examples])
        self._make_filter_controls()
        self._make_adding_controls()
        self.message = widgets.HTML()
        self.heading = widgets.HTML()
        self.results = widgets.Box(layout=Layout(flex_flow="row wrap", width="100%"))
        several = len(self.galleries) > 1
        self.views = {name: _Side(name if several else "", self) for name in self.galleries}
        self.widget = widgets.VBox(self._rows())
        self.widget.add_class("cskt-demo")
        self._list_cameras()
        self._connect_controls()

    def _make_query_controls(self, examples: Sequence[str]) -> None:
        wide = Layout(width="min(760px, 98%)")
        choices = [(text[:LONGEST], text) for text in examples]
        self.examples = widgets.Dropdown(
            options=[("choose an example …", ""), *choices], description="Example", layout=wide
        )
        # Changes when Enter is pressed or the box is left: what is typed is never cut short by a
        # search.
        self.query = widgets.Text(
            placeholder="a woman in a red coat with a black backpack",
            description="Describe",
            continuous_update=False,
            layout=Layout(flex="1 1 300px", max_width="760px"),
        )
        self.button = widgets.Button(
            description="Search", button_style="primary", icon="search", layout=Layout(width="auto")
        )
        self.upload = widgets.FileUpload(
            accept="image/*",
            multiple=False,
            description="Search by picture",
            tooltip="Find people who look like the one in a picture",
            layout=Layout(width="auto"),
        )

    def _make_filter_controls(self) -> None:
        self.hits = widgets.BoundedIntText(
            value=10, min=1, max=MOST, description="Hits", layout=Layout(width="150px")
        )
        self.camera = widgets.Dropdown(
            options=[("all", None)], description="Camera", layout=Layout(width="210px")
        )
        sides = [(name, [name]) for name in self.galleries]
        if len(sides) > 1:
            sides.insert(0, ("side by side", list(self.galleries)))
        self.sides = widgets.Dropdown(
            options=sides, description="Model", layout=Layout(width="240px")
        )

    def _make_adding_controls(self) -> None:
        self.folder = widgets.Text(
            placeholder="folder with images on this machine",
            description="Folder",
            layout=Layout(width="min(420px, 98%)"),
        )
        self.adder = widgets.Button(
            description="Add folder",
            icon="plus",
            layout=Layout(width="auto"),
            tooltip="Add the images in this folder, and below it, to the gallery",
        )

    def _rows(self) -> list[widgets.Widget]:
        filters = [self.hits, self.camera]
        if len(self.galleries) > 1:
            filters.append(self.sides)
        rows = [widgets.HTML(f"<style>{STYLE.read_text(encoding='utf-8')}</style>")]
        if len(self.examples.options) > 1:
            rows.append(self.examples)
        rows.append(_row(self.query, self.button))
        rows.append(_row(*filters, self.upload))
        rows.append(_row(self.folder, self.adder))
        rows += [self.message, self.heading, self.results]
        return rows

    def _connect_controls(self) -> None:
        self.button.on_click(lambda _: self.ask(self.query.value))
        self.query.observe(self._ask_new, names="value")
        self.examples.observe(self._ask_new, names="value")
        self.upload.observe(self._take_upload, names="value")
        self.adder.on_click(lambda _: self.add(self.folder.value))
        for control in (self.hits, self.camera, self.sides):
            control.observe(lambda _: self.show(), names="value")

    @_plainly
    def ask(self, query: str | Hit | Image.Image, name: str = "picture") -> None:
        """Search for a description, for more like a hit, or for a picture (``name``: what to call
        it)."""
        self.show(question(query, self.galleries, self.truth, name))

    @_plainly
    def ask_picture(self, name: str, content: bytes) -> None:
        """Search for a picture as it lies in a file."""
        try:
            picture = read_image(io.BytesIO(content))
        except CSKTError as error:
            raise DataError(
                f"{name}: {error}; choose a picture, such as a JPEG or PNG file."
            ) from error
        self.ask(picture, name)

    @_plainly
    def show(self, asked: Question | None = None) -> None:
        """What is found for a query (None: the present one), as hits, camera and model are set."""
        asked = asked or self.asked
        if asked is None:
            return
        k = self.hits.value
        where = ""
        if self.camera.value is not None:
            where = f"camera == {json.dumps(self.camera.value, ensure_ascii=False)}"
        found = {}
        remarks = {}
        for name in self.sides.value:
            gallery = self.galleries[name]
            found[name] = gallery.search(asked.vectors[name], k, where)
            remarks[name] = remarks_on(asked, gallery, k, len(found[name]), where)
        # Nothing has failed: only now is what was shown replaced.
        self.asked = asked
        self.found = found
        self._follow(asked)
        self._show_heading(asked)
        for name, hits in found.items():
            self.views[name].fill(hits, asked)
        self.results.children = [self.views[name].widget for name in found]
        self.say(by_gallery(remarks))
        self.explain()

    def _show_heading(self, asked: Question) -> None:
        picture = ""
        if asked.picture:
            picture = f'<img src="{asked.picture}" alt="the picture searched for"> '
        note = html.escape(f" ({self.note})") if self.note else ""
        label = html.escape(asked.label)
        self.heading.value = f'<div class="cskt-said">{picture}<b>{label}</b>{note}</div>'

    @_plainly
    def explain(self, chosen: Hit | None = None) -> None:
        """What each word adds to the similarity of a hit, in each gallery, and where in its picture
        the similarity comes from; without one, only the words, for each gallery's best hit."""
        if self.asked is None:
            return
        for name, hits in self.found.items():
            hit = chosen or next(iter(hits), None)
            panel = ""
            if hit is not None:
                gallery = self.galleries[name]
                mapped = chosen is not None
                try:
                    panel = explanation(self.asked, name, gallery, hits, hit, mapped)
                except CSKTError as error:
                    panel = html.escape(str(error))
            self.views[name].panel.value = panel

    @_plainly
    def add(self, folder: str) -> None:
        """Add the images of a folder to every gallery, saying how far it is and what was
        skipped."""
        if not folder.strip():
            raise ConfigurationError("name a folder with images first.")
        reports = {}
        self.adder.disabled = True
        try:
            for name, gallery in self.galleries.items():
                self.say([f"Reading {folder} …"])
                progress = functools.partial(self._say_progress, name)
                reports[name] = report(gallery.add(folder.strip(), on_batch=progress))
        finally:
            self.adder.disabled = False
        self._list_cameras()
        self.show()
        self.say(by_gallery(reports))

    def _say_progress(self, name: str, done: int, total: int) -> None:
        self.say([f"{name}: {done:,} of {total:,} files read …"])

    def say(self, sentences: Iterable[str]) -> None:
        """Put sentences into ``message``, escaped."""
        lines = "<br>".join(html.escape(sentence) for sentence in sentences)
        self.message.value = f'<div class="cskt-said" role="status">{lines}</div>'

    def _follow(self, asked: Question) -> None:
        """Let the controls say what is shown."""
        if asked.text:
            self.query.value = asked.text
        listed = [text for _, text in self.examples.options]
        self.examples.value = asked.text if asked.text in listed else ""

    def _ask_new(self, change: dict) -> None:
        text = change["new"]
        is_choice = change["owner"] is self.examples
        if is_choice and not text:
            return
        if self.asked is None or text != self.asked.text:  # else the box only follows what is shown
            self.ask(text)

    def _take_upload(self, change: dict) -> None:
        if change["new"]:
            file = change["new"][0]
            self.upload.value = ()  # so that the same file can be chosen again
            self.ask_picture(file["name"], bytes(file["content"]))

    def _list_cameras(self) -> None:
        first = next(iter(self.galleries.values()))
        cameras = first.values("camera")
        chosen = self.camera.value
        self.camera.options = [("all", None), *((camera, camera) for camera in cameras)]
        self.camera.value = chosen if chosen in cameras else None

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)


def _row(*children: widgets.Widget) -> widgets.Box:
    return widgets.Box(children, layout=Layout(flex_flow="row wrap", align_items="center"))


class _Side:
    """The hits in one gallery, as cards, and what is told of one of them."""

    def __init__(self, name: str, demo: RetrievalDemo) -> None:
        self.demo = demo
        self.cards: list[_Card] = []
        self.box = widgets.Box(layout=Layout(flex_flow="row wrap"))
        self.panel = widgets.HTML()
        children = [self.box, self.panel]
        if name:
            children.insert(0, widgets.HTML(f"<b>{html.escape(name)}</b>"))
        layout = Layout(flex="1 1 440px", min_width="0", padding="0 8px 0 0")
        self.widget = widgets.VBox(children, layout=layout)

    def fill(self, hits: Sequence[Hit], asked: Question) -> None:
        """Show hits; cards are kept from one search to the next, as new ones take the browser
        longer."""
        while len(self.cards) < len(hits):
            self.cards.append(_Card(self.demo))
        shown = self.cards[: len(hits)]
        for index, hit in enumerate(hits):
            shown[index].fill(index + 1, hit, asked.is_right(hit))
        self.box.children = [card.widget for card in shown]


class _Card:
    """A hit: its picture, and buttons for what can be asked of it."""

    def __init__(self, demo: RetrievalDemo) -> None:
        self.hit: Hit | None = None
        self.picture = widgets.HTML()
        self.map = _small_button("map")
        self.more = _small_button("more like this")
        self.map.on_click(lambda _: demo.explain(self.hit))
        self.more.on_click(lambda _: demo.ask(self.hit))
        layout = Layout(align_items="center", margin="0 0 8px")
        self.widget = widgets.VBox([self.picture, self.map, self.more], layout=layout)

    def fill(self, rank: int, hit: Hit, right: bool | None) -> None:
        self.hit = hit
        self.picture.value = hit_figure(hit_picture(hit), rank, hit.score, hit.label(), right)
        self.map.tooltip = f"Where in the picture at rank {rank} the similarity comes from"
        self.more.tooltip = f"Search for more like the picture at rank {rank}"


def _small_button(description: str) -> widgets.Button:
    button = widgets.Button(description=description, layout=Layout(width="104px", height="24px"))
    button.style.font_size = "12px"
    return button


def gallery_demo(uri: str) -> RetrievalDemo:
    """The demo of a gallery that ``python -m cskt index`` has made; :class:`CSKTError` where there
    is none."""
    gallery = Gallery(uri, create=False)
    return RetrievalDemo({Path(uri).name: gallery}, note=f"{len(gallery):,} images of {uri}")


def run_demo(
    run: Run, data: PersonRetrievalDataset | None = None, examples: int = 8
) -> RetrievalDemo:
    """The demo of a run: its model and the one before training, side by side over the test images
    of a data set (None: the run's own), with so many captions as examples and all of them as
    truth."""
    if data is None:
        data = load_dataset(run.config.dataset, run.config.data_root)
    galleries = run_galleries(run, data)
    chosen = example_captions(data.test, examples, run.config.seed + 1)
    note = f"{len(data.test.image_paths):,} test images of {data.name}"
    if data.synthetic:
        note += ", synthetic"
    return RetrievalDemo(galleries, chosen, right_identities(data.test), note)
