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

from cskt.data.synthetic.canvas import PART
from cskt.data.synthetic.captions import PRONOUNS, WORDINGS, Phrases, join, visible_attributes
from cskt.data.synthetic.identities import Identity, sample_identity
from cskt.data.synthetic.render import render
from cskt.data.synthetic.style import Scene, Style

CHUNK = 2000
_SEED = 1_000_003
HEIGHT, WIDTH = 128, 64
ILLUSTRATION = Style(
    height=HEIGHT,
    supersample=3,
    light=(0.85, 1.15),
    saturation=1.1,
    palette_shift=14.0,
    noise=2.0,
    blur=(0.0, 0.6),
    outline=0.45,
    folds=0.03,
    volume=0.0,
    head=1.35,
    backdrop="plain",
    occlusion=0.05,
    crop=0.02,
    raise_arm=0.3,
)
_VIEW_ODDS = {"front": 0.4, "back": 0.2, "left": 0.2, "right": 0.2}

_FRAMES = (
    "{list}",
    "{who}, {list}",
    "a drawing of {list}",
    "a drawing of a {who} in {list}",
    "a {who} wearing {list}",
    "an illustration of a {who} dressed in {list}.",
    "this {who} has {list}.",
    "there is a {who} with {list}.",
    "there were {list} on the {who}.",
    "in addition, {he} has put on {list}.",
    "{he} wore {list}.",
    "the outfit of this {who} is completed with {list}.",
    "{his} look was finished by {list}.",
    "{list} can be seen on {him}, who is {view}.",
    "the picture shows {him} {view}: {list}.",
    "on top of that, {list}.",
    "{he} wears {list} as well.",
    "{he} is also seen in {list}.",
    "{he} was {view}, in {list}.",
    "{he} had {list} and was {view}.",
    "{list} went along with {him}.",
    "{he} holds {list} while walking.",
    "the {who} carried {list} along.",
    "{he} is carrying {list}.",
    "a {who} whose things are {list}",
    "we see a {who} {view}. {he} has {list} on.",
    "{view}, the {who} is wearing {list}.",
    "{who} {view} with {list}",
    "a cartoon of a {who} {view}",
)
_OBJECT_FRAMES = (
    "{it}",
    "a picture of {it}",
    "a drawing of {it}",
    "there is {it}.",
    "{it} on a plain background",
    "we see {it}.",
    "{it} and no person",
    "only {it}",
)
_VIEWS = {
    view: [phrase for words in WORDINGS.values() for phrase in words["views"][view]]
    for view in _VIEW_ODDS
}
_OBJECTS = ("upper", "lower", "shoes", "bag", "headwear", "umbrella", "scarf")


def _zoom(image: np.ndarray, labels: np.ndarray, part: str, rng: np.random.Generator) -> np.ndarray:
    """One garment or thing alone, enlarged on a plain ground; (128, 64, 3) uint8."""
    mask = labels == PART[part]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    ground = np.clip(rng.normal(205, 34, 3), 60, 255)
    alone = np.where(mask[..., None], image, ground.astype(np.uint8))
    crop = Image.fromarray(alone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = min(HEIGHT / crop.height, WIDTH / crop.width) * rng.uniform(0.55, 0.95)
    size = tuple(max(1, int(side * scale)) for side in crop.size)
    page = Image.new("RGB", (WIDTH, HEIGHT), tuple(int(c) for c in ground))
    page.paste(
        crop.resize(size, Image.Resampling.BILINEAR),
        ((WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2),
    )
    return np.asarray(page)


def corpus_item(index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Item ``index``: image (128, 64, 3) uint8 and the facts from which captions are written."""
    rng = np.random.default_rng((_SEED, index))
    person = sample_identity(rng)
    view = str(rng.choice(list(_VIEW_ODDS), p=list(_VIEW_ODDS.values())))
    style = dataclasses.replace(
        ILLUSTRATION, head=float(rng.uniform(1.15, 1.55)), outline=float(rng.uniform(0.1, 0.6))
    )
    image, labels = render(person, Scene(view, 0, int(rng.integers(2**31))), style)
    shown = visible_attributes(person, labels, view)
    facts = {"person": dataclasses.asdict(person), "view": view, "shown": shown, "object": None}
    things = [part for part in _OBJECTS if part in shown]
    if things and rng.random() < 0.15:
        facts["object"] = str(rng.choice(things))
        image = _zoom(image, labels, facts["object"], rng)
    return image, facts


def corpus_caption(facts: dict[str, Any], rng: np.random.Generator) -> str:
    """A caption of an item, short or long, drawn anew at every call."""
    person, view, shown = Identity(**facts["person"]), facts["view"], facts["shown"]
    phrases = Phrases(person, view, rng, synonym=None, pair=0.2)
    if thing := facts["object"]:
        return str(rng.choice(_OBJECT_FRAMES)).format(it=phrases.of(thing, shown[thing]))
    groups = [group for group in shown if group != "inner"]
    count = min(len(groups), int(rng.integers(1, 8)))
    parts = [
        phrases.of(group, shown[group], inner="inner" in shown and rng.random() < 0.5)
        for group in map(str, rng.permutation(groups)[:count])
    ]
    frame, lists = str(rng.choice(_FRAMES)) if parts else _FRAMES[-1], {"list": join(parts)}
    if rng.random() < 0.5 and len(parts) > 3:
        middle = int(rng.integers(1, len(parts)))
        second = str(rng.choice(_FRAMES[:-1]))
        frame = frame.replace("{list}", "{first}") + " " + second.replace("{list}", "{second}")
        lists = {"first": join(parts[:middle]), "second": join(parts[middle:])}
    he, him, his = PRONOUNS[person.gender]
    return frame.format(
        who=phrases.word(person.gender),
        he=he,
        him=him,
        his=his,
        view=str(rng.choice(_VIEWS[view])),
        **lists,
    )


def _render_items(indices: range) -> tuple[np.ndarray, list[dict[str, Any]]]:
    images, facts = zip(*map(corpus_item, indices), strict=True)
    return np.stack(images), list(facts)


def build_corpus(
    folder: Path, images: int, workers: int = 2
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """All images (N, 128, 64, 3) and their facts, rendered in chunks that survive an interruption;
    N is ``images`` rounded up to a multiple of 2,000."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-images // CHUNK))
    missing = [chunk for chunk in chunks if not (folder / f"{chunk}.json").exists()]
    with multiprocessing.get_context("spawn").Pool(workers if missing else 1) as pool:
        drawn = pool.imap(
            _render_items, [range(chunk * CHUNK, (chunk + 1) * CHUNK) for chunk in missing]
        )
        for chunk, (pixels, facts) in zip(
            tqdm(missing, desc="corpus chunks", disable=not missing), drawn, strict=True
        ):
            np.save(folder / f"{chunk}.npy", pixels)
            (folder / f"{chunk}.json.part").write_text(json.dumps(facts))
            (folder / f"{chunk}.json.part").replace(folder / f"{chunk}.json")
    arrays = [np.load(folder / f"{chunk}.npy", mmap_mode="r") for chunk in chunks]
    facts = [
        fact for chunk in chunks for fact in json.loads((folder / f"{chunk}.json").read_text())
    ]
    return np.concatenate(arrays), facts
