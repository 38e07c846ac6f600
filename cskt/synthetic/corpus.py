"""The generic corpus that cskt-mini is pre-trained on: illustrated people, single garments and
things.

It shares the benchmark's attribute names and their words, each of which occurs, and nothing else:
the people are drawn from other seeds, in an illustrator's style, and described in frames of their
own.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from cskt.files import write_atomically
from cskt.synthetic.canvas import PART, to_colour
from cskt.synthetic.captions import Phrases, join, visible_attributes
from cskt.synthetic.identities import Identity, sample_identity
from cskt.synthetic.lexicon import PRONOUNS, WORDINGS
from cskt.synthetic.render import render
from cskt.synthetic.scenery import pale_colour
from cskt.synthetic.style import Scene, Style
from cskt.synthetic.tables import table

SEED = 1_000_003  # no domain's
HEIGHT, WIDTH = 128, 64  # of an image
ILLUSTRATION = Style(**table("domains")["illustration"])
_VIEW_ODDS = {"front": 0.4, "back": 0.2, "left": 0.2, "right": 0.2}

_FRAMES: tuple[str, ...] = table("words")["corpus_frames"]
_NO_LIST = _FRAMES[-1]
_OBJECT_FRAMES: tuple[str, ...] = table("words")["corpus_object_frames"]
_OBJECTS = ("upper", "lower", "shoes", "bag", "headwear", "umbrella", "scarf")


def _zoom(image: np.ndarray, labels: np.ndarray, part: str, rng: np.random.Generator) -> np.ndarray:
    """One garment or thing alone, enlarged on a plain ground; (128, 64, 3) uint8."""
    ground = pale_colour(rng).astype(np.uint8)
    thing = _cut_out(image, labels == PART[part], ground)
    fit = min(HEIGHT / thing.height, WIDTH / thing.width)
    scale = fit * rng.uniform(0.55, 0.95)
    width = max(1, int(thing.width * scale))
    height = max(1, int(thing.height * scale))
    enlarged = thing.resize((width, height), Image.Resampling.BILINEAR)
    page = Image.new("RGB", (WIDTH, HEIGHT), to_colour(ground))
    left = (WIDTH - width) // 2
    top = (HEIGHT - height) // 2
    page.paste(enlarged, (left, top))
    return np.asarray(page)


def _cut_out(image: np.ndarray, mask: np.ndarray, ground: np.ndarray) -> Image.Image:
    """The smallest part of the image that holds all of the mask, with ``ground`` around it."""
    alone = np.where(mask[..., None], image, ground)
    box = Image.fromarray(mask).getbbox()
    return Image.fromarray(alone).crop(box)


def corpus_item(index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Item ``index``: image (128, 64, 3) uint8 and the facts from which captions are written."""
    rng = np.random.default_rng((SEED, index))
    person = sample_identity(rng)
    view = str(rng.choice(list(_VIEW_ODDS), p=list(_VIEW_ODDS.values())))
    head = float(rng.uniform(1.15, 1.55))
    outline = float(rng.uniform(0.1, 0.6))
    style = dataclasses.replace(ILLUSTRATION, head=head, outline=outline)
    scene = Scene(view, camera=0, seed=int(rng.integers(2**31)))
    image, labels = render(person, scene, style)
    shown = visible_attributes(person, labels, view)
    facts: dict[str, Any] = {
        "person": dataclasses.asdict(person),
        "view": view,
        "shown": shown,
        "object": None,
    }
    things = [part for part in _OBJECTS if part in shown]
    if things and rng.random() < 0.15:
        thing = str(rng.choice(things))
        facts["object"] = thing
        image = _zoom(image, labels, thing, rng)
    return image, facts


def corpus_caption(facts: dict[str, Any], rng: np.random.Generator) -> str:
    """A caption of an item, short or long, drawn anew at every call."""
    person = Identity(**facts["person"])
    view = facts["view"]
    shown = facts["shown"]
    thing = facts["object"]
    vocabulary = Phrases(person, view, rng, synonym=None, pair=0.2)
    if thing:
        frame = str(rng.choice(_OBJECT_FRAMES))
        return frame.format(it=vocabulary.of(thing, shown[thing]))
    phrases = _some_phrases(shown, vocabulary, rng)
    frame = str(rng.choice(_FRAMES)) if phrases else _NO_LIST
    lists = {"list": join(phrases)}
    if rng.random() < 0.5 and len(phrases) > 3:
        middle = int(rng.integers(1, len(phrases)))
        second = str(rng.choice(_FRAMES[:-1]))
        frame = frame.replace("{list}", "{first}") + " " + second.replace("{list}", "{second}")
        lists = {"first": join(phrases[:middle]), "second": join(phrases[middle:])}
    who = vocabulary.word(person.gender)
    seen_as = str(rng.choice(_views(view)))
    return frame.format(who=who, view=seen_as, **PRONOUNS[person.gender], **lists)


def _some_phrases(
    shown: dict[str, str], vocabulary: Phrases, rng: np.random.Generator
) -> list[str]:
    """Phrases of one to seven of the visible groups, in any order."""
    groups = [group for group in shown if group != "inner"]
    count = min(len(groups), int(rng.integers(1, 8)))
    phrases: list[str] = []
    for group in rng.permutation(groups)[:count]:
        inner = "inner" in shown and rng.random() < 0.5
        phrases.append(vocabulary.of(str(group), shown[group], inner))
    return phrases


def _views(view: str) -> list[str]:
    """What all wordings say of a view."""
    phrases: list[str] = []
    for wording in WORDINGS.values():
        phrases += wording.views[view]
    return phrases


def build_corpus(
    folder: Path, images: int, workers: int = 2
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """All images (``images``, 128, 64, 3) uint8 and their facts, rendered on first use into
    ``folder``."""
    pixels_file = folder / f"{images}.npy"
    facts_file = folder / f"{images}.json"  # written last: it says that the corpus is whole
    if not facts_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = (images, HEIGHT, WIDTH, 3)
        pixels = np.lib.format.open_memmap(pixels_file, mode="w+", dtype=np.uint8, shape=shape)
        facts: list[dict[str, Any]] = []
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            items = pool.imap(corpus_item, range(images), chunksize=100)
            for image, fact in tqdm(items, desc="corpus", total=images):
                pixels[len(facts)] = image
                facts.append(fact)
        pixels.flush()
        write_atomically(facts_file, json.dumps(facts))
    return np.load(pixels_file, mmap_mode="r"), json.loads(facts_file.read_text())
