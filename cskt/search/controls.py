"""The controls above the demo's results, in as few rows as the page's width allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cskt.extras import extra

with extra("book"):
    import ipywidgets as widgets
    from ipywidgets import Layout

MOST = 50  # hits on a page
LONGEST = 110  # characters of a query in a list
ALL = "all"  # of no camera; its value is "", as a box whose value is None looks empty
STYLE = Path(__file__).parent / "web" / "demo.css"


class Controls:
    """What a visitor types, chooses and presses. ``galleries``: their names; ``examples``:
    descriptions to choose from."""

    def __init__(self, galleries: Sequence[str], examples: Sequence[str]) -> None:
        choices = [(text[:LONGEST], text) for text in examples]
        wide = Layout(width="min(760px, 98%)")
        self.examples = widgets.Dropdown(
            options=[("choose an example …", ""), *choices], description="Example", layout=wide
        )
        # Changes when Enter is pressed or the box is left: what is typed is never cut short by a
        # search.
        self.query = widgets.Text(
            placeholder="a woman in a red coat with a black backpack",
            description="Describe",
            continuous_update=False,
            layout=Layout(flex="1 1 220px", max_width="760px"),
        )
        self.button = _button("Search", icon="search", button_style="primary")
        self.upload = widgets.FileUpload(
            accept="image/*",
            multiple=False,
            description="Search by picture",
            tooltip="Find people who look like the one in a picture",
            layout=Layout(width="auto"),
        )
        self.combine = _box("with the picture", "Look for the picture, but as the words say")
        self.hits = widgets.BoundedIntText(
            value=10, min=1, max=MOST, description="Hits", layout=Layout(width="110px")
        )
        self.camera = widgets.Dropdown(
            options=[(ALL, "")], description="Camera", layout=Layout(width="150px")
        )
        sides = [(name, [name]) for name in galleries]
        if len(sides) > 1:
            sides.insert(0, ("side by side", list(galleries)))
        self.sides = widgets.Dropdown(
            options=sides, description="Model", layout=Layout(width="190px")
        )
        self.earlier = _button("◀", tooltip="Earlier hits", disabled=True)
        self.later = _button("▶", tooltip="Later hits", disabled=True)
        self.again = _button("Search with marks", icon="refresh", disabled=True)
        self.clear = _button("Clear marks", disabled=True)
        self.export = _button("Export marks", icon="download", disabled=True)
        self.unseen = _box(
            "hide seen", "Leave out what was shown before the last search with marks"
        )
        self.folder = widgets.Text(
            placeholder="folder with images on this machine",
            description="Folder",
            layout=Layout(flex="1 1 220px", max_width="420px"),
        )
        self.adder = _button(
            "Add folder",
            icon="plus",
            tooltip="Add the images in this folder, and below it, to the gallery",
        )
        self.progress = widgets.IntProgress(layout=Layout(width="150px", display="none"))

    def rows(self) -> list[widgets.Widget]:
        """The controls, row by row; those for a folder are folded away."""
        filters = [self.hits, self.camera]
        if len(self.sides.options) > 1:
            filters.append(self.sides)
        rows = [widgets.HTML(f"<style>{STYLE.read_text(encoding='utf-8')}</style>")]
        if len(self.examples.options) > 1:
            rows.append(self.examples)
        rows.append(_row(self.query, self.button, self.combine))
        rows.append(_row(*filters, self.upload))
        rows.append(_row(self.again, self.clear, self.export, self.unseen))
        return rows

    def adding(self) -> widgets.Widget:
        """The row that adds a folder."""
        return _row(self.folder, self.adder, self.progress)

    def paging(self) -> widgets.Widget:
        """The buttons to earlier and later hits."""
        return _row(self.earlier, self.later)

    def list_cameras(self, cameras: Sequence[str]) -> None:
        """Offer these cameras, and keep the one that is chosen if it is among them."""
        chosen = self.camera.value
        self.camera.options = [(ALL, ""), *((camera, camera) for camera in cameras)]
        self.camera.value = chosen if chosen in cameras else ""

    def show_progress(self, done: int, total: int) -> None:
        """A bar while a folder is added, gone when all is ``done``."""
        self.progress.max = max(total, 1)
        self.progress.value = done
        self.progress.layout.display = "none" if done >= total else ""


def _row(*children: widgets.Widget) -> widgets.Box:
    row = widgets.Box(children, layout=Layout(flex_flow="row wrap", align_items="center"))
    row.add_class("cskt-row")
    return row


def _button(description: str, **options: object) -> widgets.Button:
    return widgets.Button(description=description, layout=Layout(width="auto"), **options)


def _box(description: str, tooltip: str) -> widgets.Checkbox:
    return widgets.Checkbox(
        value=False,
        description=description,
        tooltip=tooltip,
        indent=False,
        layout=Layout(width="auto"),
    )
