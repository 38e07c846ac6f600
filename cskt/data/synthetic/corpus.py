"""The generic corpus that cskt-mini is pre-trained on: illustrated people, single garments and things.

It shares the alphabet of the benchmark (attribute names, their words) and nothing else: no identity is drawn twice
as in a gallery, the drawing style is an illustrator's (large heads, flat cloth, hard outlines, plain backdrops), the
seeds differ, and captions run from one word to long lists in frames of their own. Every word of the three benchmark
wordings occurs, so that none is left at its random initialisation.
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

from .captions import WORDINGS, Phrases, join, visible_attributes
from .figure import PART
from .identities import Identity, sample_identity
from .render import HEIGHT, WIDTH, Scene, Style, render

CHUNK = 2000
_SEED = 1_000_003
ILLUSTRATION = Style(light=(0.85, 1.15), saturation=1.1, palette_shift=14.0, noise=2.0, blur=(0.0, 0.6), outline=0.45,
                     folds=0.03, head=1.35, backdrop="plain", occlusion=0.05, crop=0.02, raise_arm=0.3,
                     views=(0.4, 0.2, 0.2, 0.2))

_FRAMES = (
    "{list}", "{who}, {list}", "a drawing of {list}", "a drawing of a {who} in {list}", "a {who} wearing {list}",
    "an illustration of a {who} dressed in {list}.", "this {who} has {list}.", "there is a {who} with {list}.",
    "there were {list} on the {who}.", "in addition, {he} has put on {list}.", "{he} wore {list}.",
    "the outfit of this {who} is completed with {list}.", "{his} look was finished by {list}.",
    "{list} can be seen on {him}, who is {view}.", "the picture shows {him} {view}: {list}.", "on top of that, {list}.",
    "{he} wears {list} as well.", "{he} is also seen in {list}.", "{he} was {view}, in {list}.",
    "{he} had {list} and was {view}.", "{list} went along with {him}.", "{he} holds {list} while walking.",
    "the {who} carried {list} along.", "{he} is carrying {list}.", "a {who} whose things are {list}",
    "we see a {who} {view}. {he} has {list} on.", "{view}, the {who} is wearing {list}.",
    "{who} {view} with {list}", "a cartoon of a {who} {view}",
)
_OBJECT_FRAMES = ("{it}", "a picture of {it}", "a drawing of {it}", "there is {it}.", "{it} on a plain background",
                  "we see {it}.", "{it} and no person", "only {it}")
_VIEWS = {view: tuple(phrase for words in WORDINGS.values() for phrase in words.views[view])
          for view in ("front", "back", "left", "right")}
_OBJECTS = ("upper", "lower", "shoes", "bag", "headwear", "umbrella", "scarf")


def _zoom(image: np.ndarray, labels: np.ndarray, part: str, rng: np.random.Generator) -> np.ndarray:
    """One garment or thing alone, enlarged on a plain ground; (128, 64, 3) uint8."""
    mask = labels == PART[part]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    ground = np.clip(rng.normal(205, 34, 3), 60, 255)
    alone = np.where(mask[..., None], image, ground.astype(np.uint8))
    crop = Image.fromarray(alone[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1])
    scale = min(HEIGHT / crop.height, WIDTH / crop.width) * rng.uniform(0.55, 0.95)
    size = max(1, int(crop.width * scale)), max(1, int(crop.height * scale))
    page = Image.new("RGB", (WIDTH, HEIGHT), tuple(int(c) for c in ground))
    page.paste(crop.resize(size, Image.Resampling.BILINEAR), ((WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2))
    return np.asarray(page)


def corpus_item(index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Item ``index``: image (128, 64, 3) uint8 and the facts from which captions are written."""
    rng = np.random.default_rng((_SEED, index))
    person = sample_identity(rng)
    view = str(rng.choice(["front", "back", "left", "right"], p=ILLUSTRATION.views))
    style = dataclasses.replace(ILLUSTRATION, head=float(rng.uniform(1.15, 1.55)), outline=float(rng.uniform(0.1, 0.6)))
    image, labels = render(person, Scene(view, 0, int(rng.integers(2**31))), style)
    shown = visible_attributes(person, labels, view)
    facts: dict[str, Any] = {"person": person.to_dict(), "view": view, "shown": shown, "object": None}
    things = [part for part in _OBJECTS if part in shown]
    if things and rng.random() < 0.15:
        facts["object"] = str(rng.choice(things))
        image = _zoom(image, labels, facts["object"], rng)
    return image, facts


def corpus_caption(facts: dict[str, Any], rng: np.random.Generator) -> str:
    """A caption of an item, short or long, drawn anew at every call."""
    person, view, shown = Identity(**facts["person"]), facts["view"], facts["shown"]
    phrases = Phrases(person, view, rng, synonym=None, pair=0.2)
    if facts["object"]:
        kind = facts["object"]
        return str(rng.choice(_OBJECT_FRAMES)).format(it=phrases.of(kind, shown[kind]))
    groups = [group for group in shown if group != "inner"]
    count = min(len(groups), int(rng.integers(1, 8)))
    chosen = [str(g) for g in rng.permutation(groups)[:count]]
    parts = [phrases.of(group, shown[group], inner="inner" in shown and rng.random() < 0.5) for group in chosen]
    he, him, his = ("he", "him", "his") if person.gender == "man" else ("she", "her", "her")
    frame = str(rng.choice(_FRAMES)) if parts else _FRAMES[-1]
    if rng.random() < 0.5 and len(parts) > 3:
        middle = int(rng.integers(1, len(parts)))
        second = str(rng.choice(_FRAMES[:-1]))
        frame = frame.replace("{list}", "{first}") + " " + second.replace("{list}", "{second}")
        lists = {"first": join(parts[:middle]), "second": join(parts[middle:])}
    else:
        lists = {"list": join(parts) if parts else ""}
    return frame.format(who=phrases.word(person.gender), he=he, him=him, his=his,
                        view=str(rng.choice(_VIEWS[view])), **lists)


def _render_chunk(chunk: int) -> tuple[int, np.ndarray, list[dict[str, Any]]]:
    items = [corpus_item(index) for index in range(chunk * CHUNK, (chunk + 1) * CHUNK)]
    return chunk, np.stack([image for image, _ in items]), [facts for _, facts in items]


def build_corpus(folder: Path, images: int, workers: int = 2) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Render the corpus in chunks that survive an interruption; returns all images (N, 128, 64, 3), memory-mapped per
    chunk, and their facts. ``images`` is rounded up to a multiple of 2,000."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-images // CHUNK))
    missing = [chunk for chunk in chunks if not (folder / f"{chunk}.json").exists()]
    with multiprocessing.get_context("spawn").Pool(workers if missing else 1) as pool:
        for chunk, pixels, facts in tqdm(pool.imap_unordered(_render_chunk, missing), total=len(missing),
                                         desc="corpus chunks", disable=not missing):
            np.save(folder / f"{chunk}.npy", pixels)
            (folder / f"{chunk}.json.part").write_text(json.dumps(facts))
            (folder / f"{chunk}.json.part").replace(folder / f"{chunk}.json")
    arrays = [np.load(folder / f"{chunk}.npy", mmap_mode="r") for chunk in chunks]
    facts = [fact for chunk in chunks for fact in json.loads((folder / f"{chunk}.json").read_text())]
    return np.concatenate(arrays), facts
