"""What was asked of galleries, and why they answer as they do: words, maps, remarks as html or
sentences."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cskt.analysis.feedback import combined_query
from cskt.analysis.relevance import image_relevance, word_differences
from cskt.data.augment import normalize
from cskt.data.images import resize
from cskt.errors import ConfigurationError
from cskt.model.cskt import CSKT
from cskt.search.gallery import Gallery
from cskt.search.hits import Hit, hit_picture, shaded, small_uri, word_bars
from cskt.search.indexing import Added
from cskt.search.query import check_description

LISTED = 10  # skipped files that are named
MAP_SIZE = (512, 512)  # at most, of the picture under a map
MAP_HEIGHT = 256  # of the map on the page
Word = tuple[str, float]  # what it is, and what it adds to a similarity


@dataclass(frozen=True)
class Question:
    """A query that could be understood.

    ``label``: what to call it. ``vectors``: gallery -> its vector there. ``text``: the
    description, if it is one. ``right``: the identities that are right, if they are known.
    ``picture``: the picture as a data address, if it is one.
    """

    label: str
    vectors: Mapping[str, np.ndarray]
    text: str = ""
    right: Collection[int] | None = None
    picture: str = ""

    def is_right(self, hit: Hit) -> bool | None:
        """Whether a hit shows whom the query means; None: not known."""
        if self.right is None or hit.identity is None:
            return None
        return hit.identity in self.right


def question(
    query: str | Hit | Image.Image,
    galleries: Mapping[str, Gallery],
    truth: Mapping[str, Collection[int]],
    name: str = "picture",
) -> Question:
    """A description, a hit to find more like, or a picture (``name``: what to call it), as asked of
    galleries. ``truth``: the identities that are right for a description, where known."""
    text = check_description(query) if isinstance(query, str) else ""
    vectors = {side: gallery.encode(query) for side, gallery in galleries.items()}
    if isinstance(query, str):
        return Question(f"“{text}”", vectors, text, truth.get(text))
    if isinstance(query, Hit):
        right = None if query.identity is None else {query.identity}
        label = f"more like {query.label()}"
        return Question(label, vectors, right=right, picture=hit_picture(query))
    return Question(f"more like {name}", vectors, picture=small_uri(query))


def combined(words: Question, picture: Question | None) -> Question:
    """A description and a picture as one question: people like the one in the picture, but as the
    words say. :class:`CSKTError` without a picture."""
    if picture is None:
        raise ConfigurationError(
            "search for a picture first, or press more below a hit; then words can be combined "
            "with it."
        )
    vectors = {}
    for name, vector in words.vectors.items():
        vectors[name] = combined_query(picture.vectors[name], vector)
    label = f"{picture.label}, but {words.label}"
    return Question(label, vectors, words.text, picture=picture.picture)


def relevance(model: CSKT, vector: np.ndarray, hit: Hit) -> np.ndarray:
    """(rows, columns): where in a hit's picture its similarity to a query's vector comes from."""
    pixels = resize(hit.image(), model.image_size)
    images = normalize(torch.tensor(pixels[None]))
    direction = torch.from_numpy(vector[None])
    maps = image_relevance(model, images, direction.to(model.device))
    return maps[0].cpu().numpy()


def word_effects(asked: Question, gallery: Gallery, hit: Hit) -> list[Word]:
    """Each word of a description with the similarity to a hit of the gallery ``name`` that is lost
    without it; [] if the query is a picture."""
    if not asked.text:
        return []
    differences = word_differences(gallery.model, asked.text)
    effects = differences.cpu().numpy() @ gallery.encode(hit)
    words = asked.text.split()
    return list(zip(words, effects.tolist(), strict=True))


def explanation(
    asked: Question, name: str, gallery: Gallery, hits: Sequence[Hit], hit: Hit, mapped: bool
) -> str:
    """As html: what each word adds to the similarity of a hit and, if ``mapped``, where in its
    picture the similarity comes from. ``hits``: those that the gallery ``name`` shows."""
    ranking = [shown.id for shown in hits]
    rank = "not among the hits"
    if hit.id in ranking:
        rank = f"rank {1 + ranking.index(hit.id)}"
    score = float(gallery.encode(hit) @ asked.vectors[name])
    sentences = [f"<b>{rank}</b>, {html.escape(hit.label())}: similarity {score:.3f}."]
    views = []
    if mapped:
        label = f"{rank}, {hit.label()}, shaded where the similarity comes from"
        shares = relevance(gallery.model, asked.vectors[name], hit)
        views.append(shaded(small_uri(hit.image(), MAP_SIZE), shares, label, MAP_HEIGHT))
    if asked.text:
        sentences.append(
            "<br>What each word adds to the similarity (all of it less that without the word):"
        )
        effects = word_effects(asked, gallery, hit)
        views.append(word_bars(effects))
    if not mapped:
        separator = " " if asked.text else "<br>"
        sentences.append(f"{separator}“Map” shows where in a picture it comes from.")
    return (
        f'<div class="cskt-panel">{"".join(sentences)}<div style="display:flex;flex-wrap:wrap;'
        f'gap:12px;margin-top:6px">{"".join(views)}</div></div>'
    )


def remarks_on(
    asked: Question,
    gallery: Gallery,
    k: int,
    found: int,
    where: str,
    hidden: Collection[str] = (),
) -> list[str]:
    """What to know of an answer: what of the description is not read, and why there are fewer than
    ``k`` hits. ``hidden``: what was left out."""
    sentences = gallery.remarks(asked.text) if asked.text else []
    if found < k and hidden:
        sentences.append(f"Only {found} images are left that have not been seen.")
    elif found < k and where:
        sentences.append(f"Only {found} images fit the filter.")
    elif found < k:
        sentences.append(f"The gallery holds only {found} images.")
    return sentences


def report(added: Added) -> list[str]:
    """What became of a folder that was added, in sentences."""
    skipped = list(added.skipped.items())
    sentences = [
        f"{added.added} images added, {added.known} known already, {len(skipped)} files skipped."
    ]
    for file, why in skipped[:LISTED]:
        sentences.append(f"Skipped {file}: {why}.")
    unnamed = len(skipped) - LISTED
    if unnamed > 0:
        sentences.append(f"… and {unnamed} more.")
    return sentences


def by_gallery(sentences: Mapping[str, Sequence[str]]) -> list[str]:
    """Each sentence once, with the names of the galleries that it holds for unless it holds for
    all."""
    names: dict[str, list[str]] = {}
    for name, of_gallery in sentences.items():
        for sentence in of_gallery:
            names.setdefault(sentence, []).append(name)
    lines = []
    for sentence, holding in names.items():
        if len(holding) < len(sentences):
            sentence = f"{' and '.join(holding)}: {sentence}"
        lines.append(sentence)
    return lines
