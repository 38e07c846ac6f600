"""Search to touch, in a notebook or served by Voila: describe a person, see who is found, mark
hits and search again, ask why."""

from __future__ import annotations

import functools
import html
import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from PIL import Image

from cskt.data.datasets import PersonRetrievalDataset, load_dataset
from cskt.data.images import read_image
from cskt.errors import ConfigurationError, CSKTError, DataError
from cskt.extras import extra
from cskt.runs import Run
from cskt.search.cards import Actions, Side
from cskt.search.controls import Controls
from cskt.search.gallery import Gallery
from cskt.search.hits import Hit
from cskt.search.marks import Marks
from cskt.search.question import (
    Question,
    by_gallery,
    combined,
    explanation,
    question,
    remarks_on,
    report,
)
from cskt.search.run_gallery import example_captions, right_identities, run_galleries

with extra("book"):
    import ipywidgets as widgets
    from ipywidgets import Layout

KEYS = Path(__file__).parent / "web" / "demo.js"  # j, k, r, w


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


class RetrievalDemo(Controls):
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
        self.asked_first: Question | None = None  # before any mark
        self.picture: Question | None = None  # the last one, to be combined with words
        self.marks = Marks()
        self.page = 0
        texts = [" ".join(text.split()) for text in examples]
        super().__init__(list(self.galleries), texts)
        self.message = widgets.HTML()
        self.heading = widgets.HTML()
        self.saved = widgets.HTML()
        self.results = widgets.Box(layout=Layout(flex_flow="row wrap", width="100%"))
        several = len(self.galleries) > 1
        actions = Actions(self.explain, self.ask, self.mark, lambda hit: self.marks.of(hit))
        self.views = {name: Side(name if several else "", actions) for name in self.galleries}
        below = [self.message, self.heading, self.saved, self.results, self.paging(), self.adding()]
        self.widget = widgets.VBox([*self.rows(), *below])
        self.widget.add_class("cskt-demo")
        self._list_cameras()
        self._connect_controls()

    def _connect_controls(self) -> None:
        self.button.on_click(lambda _: self.ask(self.query.value))
        self.query.observe(self._ask_new, names="value")
        self.examples.observe(self._ask_new, names="value")
        self.upload.observe(self._take_upload, names="value")
        self.adder.on_click(lambda _: self.add(self.folder.value))
        for control in (self.hits, self.camera, self.sides, self.unseen):
            control.observe(lambda _: self.turn_to(0), names="value")
        self.earlier.on_click(lambda _: self.turn_to(self.page - 1))
        self.later.on_click(lambda _: self.turn_to(self.page + 1))
        self.again.on_click(lambda _: self.refine())
        self.clear.on_click(lambda _: self.forget_marks())
        self.export.on_click(lambda _: self.export_marks())

    @_plainly
    def ask(self, query: str | Hit | Image.Image, name: str = "picture") -> None:
        """Search for a description, for more like a hit, or for a picture (``name``: what to call
        it). A description is combined with the last picture if that box is ticked. Marks are of the
        question before, and forgotten."""
        asked = question(query, self.galleries, self.truth, name)
        if asked.text and self.combine.value:
            asked = combined(asked, self.picture)
        marks = Marks()
        self._search(asked, 0, marks)
        self.asked_first = asked
        if not asked.text:
            self.picture = asked

    @_plainly
    def mark(self, hit: Hit, right: bool) -> None:
        """Mark a hit as right or wrong; the same mark once more takes it back."""
        self.marks.toggle(hit, right)
        self._show_marks()

    @_plainly
    def refine(self) -> None:
        """Search again with the query as the marks move it."""
        if self.asked_first is None:
            return
        asked = self.marks.refine(self.asked_first, self.galleries)
        for hits in self.found.values():
            self.marks.see(hits)
        self._search(asked, 0, self.marks)

    @_plainly
    def forget_marks(self) -> None:
        """Take all marks back, and search for what was asked."""
        if self.asked_first is not None:
            self._search(self.asked_first, 0, Marks())

    @_plainly
    def export_marks(self) -> None:
        """Offer the marked hits as a table and as a page with their pictures."""
        if self.asked is not None:
            self.saved.value = self.marks.downloads(self.asked.label)

    @_plainly
    def turn_to(self, page: int) -> None:
        """Show another page of hits, from 0."""
        if self.asked is not None:
            self._search(self.asked, max(page, 0), self.marks)

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

    def show(self) -> None:
        """What is found for the present query, as hits, camera and model are set."""
        self.turn_to(self.page)

    def _search(self, asked: Question, page: int, marks: Marks) -> None:
        """Show a page of what is found; what was shown stays if that fails."""
        first = page * self.hits.value
        k = first + self.hits.value
        where = ""
        if self.camera.value:
            where = f"camera == {json.dumps(self.camera.value, ensure_ascii=False)}"
        hidden = marks.seen if self.unseen.value else ()
        found = {}
        remarks = {}
        later = False
        for name in self.sides.value:
            gallery = self.galleries[name]
            hits = gallery.search(asked.vectors[name], k + 1, where, exclude=hidden)
            later = later or len(hits) > k
            found[name] = hits[first:k]
            remarks[name] = remarks_on(asked, gallery, k, len(hits), where, hidden)
        # Nothing has failed: only now is what was shown replaced.
        self.asked = asked
        self.found = found
        self.marks = marks
        self.page = page
        self.earlier.disabled = page == 0
        self.later.disabled = not later
        self._follow(asked)
        self._show_heading(asked)
        for name, hits in found.items():
            self.views[name].fill(hits, asked, first + 1)
        self.results.children = [self.views[name].widget for name in found]
        self._show_marks()
        self.say(by_gallery(remarks))
        self.explain()

    def _show_marks(self) -> None:
        for view in self.views.values():
            view.show_marks()
        marked = bool(self.marks.hits(True) or self.marks.hits(False))
        for button in (self.again, self.clear, self.export):
            button.disabled = not marked
        self.saved.value = ""  # offers the marks as they were

    def _show_heading(self, asked: Question) -> None:
        picture = ""
        if asked.picture:
            picture = f'<img src="{asked.picture}" alt="the picture searched for"> '
        note = html.escape(f" ({self.note})") if self.note else ""
        label = html.escape(asked.label)
        link = ""
        if asked.text:
            address = html.escape("?" + urlencode({"describe": asked.text}))
            link = f' · <a href="{address}">link to this search</a>'
        self.heading.value = f'<div class="cskt-said">{picture}<b>{label}</b>{note}{link}</div>'

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
        self.show_progress(0, 1)
        try:
            for name, gallery in self.galleries.items():
                self.say([f"Reading {folder} …"])
                progress = functools.partial(self._say_progress, name)
                reports[name] = report(gallery.add(folder.strip(), on_batch=progress))
        finally:
            self.adder.disabled = False
            self.show_progress(1, 1)
        self._list_cameras()
        self.show()
        self.say(by_gallery(reports))

    def _say_progress(self, name: str, done: int, total: int) -> None:
        self.show_progress(min(done, total - 1), total)
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
        self.list_cameras(first.values("camera"))

    def _ipython_display_(self) -> None:
        from IPython.display import Javascript, display

        display(self.widget)
        display(Javascript(KEYS.read_text(encoding="utf-8")))


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


def linked_query(address: str) -> str:
    """The description in the part of an address behind its "?", as "link to this search" writes
    it; "" without one."""
    return parse_qs(address).get("describe", [""])[0]
