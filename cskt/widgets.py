"""Interactive retrieval in a notebook: type a description, see the gallery's best matches."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image

from .config import CSKTError
from .model.cskt import CSKT

MAX_QUERY = 500


def image_uri(image: np.ndarray) -> str:
    """An (H, W, 3) uint8 image as a data address that a page can show without a server."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=88)
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
