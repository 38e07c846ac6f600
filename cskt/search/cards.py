"""Hits as cards on the demo's page: picture, rank, and buttons for what can be asked of each."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cskt.extras import extra
from cskt.search.hits import Hit, hit_figure, hit_picture
from cskt.search.question import Question

with extra("book"):
    import ipywidgets as widgets
    from ipywidgets import Layout


@dataclass(frozen=True)
class Actions:
    """What the buttons of a card do with its hit; ``mark`` is also given whether it is right, and
    ``marked`` says how a hit is marked (None: not)."""

    explain: Callable[[Hit], None]
    more: Callable[[Hit], None]
    mark: Callable[[Hit, bool], None]
    marked: Callable[[Hit], bool | None]


class Side:
    """The hits in one gallery, as cards, and what is told of one of them."""

    def __init__(self, name: str, actions: Actions) -> None:
        self.actions = actions
        self.cards: list[Card] = []
        self.box = widgets.Box(layout=Layout(flex_flow="row wrap"))
        self.panel = widgets.HTML()
        children = [self.box, self.panel]
        if name:
            children.insert(0, widgets.HTML(f"<b>{html.escape(name)}</b>"))
        layout = Layout(flex="1 1 340px", min_width="0", padding="0 8px 0 0")
        self.widget = widgets.VBox(children, layout=layout)

    def fill(self, hits: Sequence[Hit], asked: Question, first: int = 1) -> None:
        """Show hits, the first at rank ``first``; cards are kept from one search to the next, as
        new ones take the browser longer."""
        while len(self.cards) < len(hits):
            self.cards.append(Card(self.actions))
        shown = self.cards[: len(hits)]
        for index, hit in enumerate(hits):
            shown[index].fill(first + index, hit, asked.is_right(hit))
        self.box.children = [card.widget for card in shown]

    def show_marks(self) -> None:
        """Let the buttons say how each hit is marked."""
        for card in self.cards:
            card.show_mark()


class Card:
    """A hit: its picture, and buttons for what can be asked of it."""

    def __init__(self, actions: Actions) -> None:
        self.hit: Hit | None = None
        self.actions = actions
        self.picture = widgets.HTML()
        self.right = _button("✓", "cskt-right")
        self.wrong = _button("✗", "cskt-wrong")
        self.map = _button("map", "cskt-map")
        self.more = _button("more", "cskt-more")
        self.right.on_click(lambda _: self._mark(True))
        self.wrong.on_click(lambda _: self._mark(False))
        self.map.on_click(lambda _: self.hit and actions.explain(self.hit))
        self.more.on_click(lambda _: self.hit and actions.more(self.hit))
        marks = widgets.Box([self.right, self.wrong, self.map, self.more])
        layout = Layout(align_items="center", margin="0 0 8px")
        self.widget = widgets.VBox([self.picture, marks], layout=layout)
        self.widget.add_class("cskt-card")

    def fill(self, rank: int, hit: Hit, right: bool | None) -> None:
        self.hit = hit
        self.picture.value = hit_figure(hit_picture(hit), rank, hit.score, hit.label(), right)
        self.right.tooltip = f"Rank {rank} is right"
        self.wrong.tooltip = f"Rank {rank} is wrong"
        self.map.tooltip = f"Where in the picture at rank {rank} the similarity comes from"
        self.more.tooltip = f"Search for more like the picture at rank {rank}"
        self.show_mark()

    def show_mark(self) -> None:
        """Colour the button of the mark, if there is one."""
        marked = None if self.hit is None else self.actions.marked(self.hit)
        self.right.button_style = "success" if marked is True else ""
        self.wrong.button_style = "danger" if marked is False else ""

    def _mark(self, right: bool) -> None:
        if self.hit is not None:
            self.actions.mark(self.hit, right)


def _button(description: str, name: str) -> widgets.Button:
    button = widgets.Button(description=description, layout=Layout(width="auto", height="24px"))
    button.style.font_size = "12px"
    button.add_class("cskt-small")
    button.add_class(name)
    return button
