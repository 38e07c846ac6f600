"""What a visitor has marked as right or wrong, and has seen, while he asks one question."""

from __future__ import annotations

import base64
import dataclasses
import html
from collections.abc import Iterable, Mapping

from cskt.search.feedback import marks_csv, query_vector
from cskt.search.gallery import Gallery
from cskt.search.hits import Hit, contact_sheet
from cskt.search.question import Question


class Marks:
    """Marked hits, and the pictures that need not be shown again."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[Hit, bool]] = {}  # by the hit's id
        self.seen: set[str] = set()

    def toggle(self, hit: Hit, right: bool) -> None:
        """Mark a hit; the same mark once more takes it back."""
        if self.of(hit) is right:
            del self._marks[hit.id]
        else:
            self._marks[hit.id] = (hit, right)

    def of(self, hit: Hit) -> bool | None:
        """Whether a hit is marked as right; None: not marked."""
        mark = self._marks.get(hit.id)
        return None if mark is None else mark[1]

    def hits(self, right: bool) -> list[Hit]:
        """Those marked as right, or as wrong, in the order of marking."""
        return [hit for hit, mark in self._marks.values() if mark is right]

    def see(self, hits: Iterable[Hit]) -> None:
        """Note that hits have been seen."""
        self.seen.update(hit.id for hit in hits)

    def refine(self, asked: Question, galleries: Mapping[str, Gallery]) -> Question:
        """The question as the marks have moved it; ``asked``: as it was asked."""
        right = self.hits(True)
        wrong = self.hits(False)
        if not right and not wrong:
            return asked
        vectors = {}
        for name, vector in asked.vectors.items():
            encode = galleries[name].encode
            vectors[name] = query_vector(encode, vector, None, right, wrong)
        label = f"{asked.label}, after {len(right)} right and {len(wrong)} wrong"
        return dataclasses.replace(asked, label=label, vectors=vectors)

    def summary(self) -> str:
        """How many there are, in words."""
        return f"{len(self.hits(True))} right, {len(self.hits(False))} wrong"

    def downloads(self, label: str) -> str:
        """As html: links that save the marks as csv, and as a page with the pictures."""
        right = self.hits(True)
        wrong = self.hits(False)
        remarks = [f"The first {len(right)} are marked right, the others wrong."]
        files = (
            ("marks.csv", "text/csv", marks_csv(right, wrong)),
            ("marks.html", "text/html", contact_sheet(label, [*right, *wrong], remarks)),
        )
        links = []
        for name, kind, text in files:
            content = base64.b64encode(text.encode()).decode()
            address = f"data:{kind};base64,{content}"
            links.append(f'<a download="{name}" href="{address}">{html.escape(name)}</a>')
        return f'<div class="cskt-said">Save {self.summary()}: {" · ".join(links)}</div>'
