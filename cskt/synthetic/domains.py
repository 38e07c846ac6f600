"""SynthPEDES: three domains, each written to disk in one official layout, so that the real loaders
read it.

A has CUHK-PEDES' layout, B ICFG-PEDES', C RSTPReid's. ``attributes.json`` beside the annotations
holds the attribute table and what rebuilds every label map (:func:`label_map`). Deterministic by
seed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from cskt.config import cache_dir
from cskt.errors import ConfigurationError, DataError
from cskt.synthetic.captions import caption, visible_attributes
from cskt.synthetic.identities import Identity, sample_identity
from cskt.synthetic.render import render
from cskt.synthetic.style import Scene, Style
from cskt.synthetic.tables import table

# raise it when the renderer, the grammar or a domain changes; recipe.json and every run name it
VERSION = 2
IDENTITIES = (300, 200, 300)  # of train, val and test
CAPTIONS_PER_IMAGE = 2
CAMERAS = 5
VIEWS = ("front", "back", "left", "right")  # one image each


@dataclass(frozen=True)
class Domain:
    """How a domain looks, and how it is written: the file of its annotations, the place of an image
    below ``imgs/``, and the annotation's field with that place. With ``tokens`` an annotation holds
    its captions' words too. ``seed`` sets its people apart from the others'."""

    style: Style
    seed: int
    annotations: str
    image_path: str
    path_field: str = "file_path"
    tokens: bool = True


DOMAINS: dict[str, Domain] = {}
for _name in ("A", "B", "C"):
    _fields = table("domains")[_name]
    DOMAINS[_name] = Domain(**(_fields | {"style": Style(**_fields["style"])}))


@dataclass(frozen=True)
class Shot:
    """One rendered image of one person, with its captions; ``number`` counts the person's."""

    identity: int
    split: str
    person: Identity
    number: int
    scene: Scene
    image: np.ndarray
    labels: np.ndarray
    captions: list[str]


def write_dataset(
    domain: str, folder: Path, seed: int = 0, identities: tuple[int, int, int] = IDENTITIES
) -> None:
    """Render domain ``A``, ``B`` or ``C`` into ``folder``: annotations, ``imgs/``,
    ``attributes.json`` and ``recipe.json``, which says what was rendered."""
    splits = ["train"] * identities[0] + ["val"] * identities[1] + ["test"] * identities[2]
    annotations = []
    attributes = []
    # disable=None: a bar on a terminal only
    bar = tqdm(splits, desc=f"rendering SynthPEDES-{domain}", unit="id", disable=None)
    for identity, split in enumerate(bar, start=1):
        for shot in _shots(domain, seed, identity, split):
            path = DOMAINS[domain].image_path.format(
                split=split,
                identity=identity,
                shot=shot.number,
                camera=shot.scene.camera + 1,
            )
            target = folder / "imgs" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shot.image).save(target, quality=92)
            annotations.append(_annotation(DOMAINS[domain], shot, path))
            attributes.append(_attribute_row(shot, path))
    recipe = {
        "name": f"SynthPEDES-{domain}",
        "version": VERSION,
        "seed": seed,
        "identities": list(identities),
    }
    (folder / "attributes.json").write_text(json.dumps(attributes))
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / DOMAINS[domain].annotations).write_text(json.dumps(annotations, indent=1))


def _shots(domain: str, seed: int, identity: int, split: str) -> Iterator[Shot]:
    """Four images of one person: four views and four cameras. Each person has a random stream of
    its own, so that who is drawn does not depend on how."""
    rng = np.random.default_rng((DOMAINS[domain].seed, seed, identity))
    person = sample_identity(rng)
    views = rng.permutation(VIEWS)
    cameras = rng.permutation(CAMERAS)
    for number, view in enumerate(views):
        scene = Scene(str(view), int(cameras[number]), seed=int(rng.integers(2**31)))
        image, labels = render(person, scene, DOMAINS[domain].style)
        captions = []
        for _ in range(CAPTIONS_PER_IMAGE):
            captions.append(caption(person, labels, scene.view, domain, rng))
        yield Shot(identity, split, person, number, scene, image, labels, captions)


def _annotation(domain: Domain, shot: Shot, path: str) -> dict[str, Any]:
    """One record of the annotations, as the official file has it."""
    record = {
        "split": shot.split,
        "captions": shot.captions,
        "id": shot.identity,
        "camera": f"c{shot.scene.camera + 1}",
        domain.path_field: path,
    }
    if domain.tokens:
        record["processed_tokens"] = [_tokens(text) for text in shot.captions]
    return record


def _tokens(text: str) -> list[str]:
    """Words and punctuation marks in lower case."""
    return re.sub(r"([.,])", r" \1", text.lower()).split()


def _attribute_row(shot: Shot, path: str) -> dict[str, Any]:
    """One row of ``attributes.json``: what the image shows, and what renders it again."""
    return {
        "path": path,
        "id": shot.identity,
        "split": shot.split,
        "view": shot.scene.view,
        "camera": shot.scene.camera,
        "scene_seed": shot.scene.seed,
        "shown": visible_attributes(shot.person, shot.labels, shot.scene.view),
        "attributes": asdict(shot.person),
    }


def label_map(domain: str, row: dict[str, Any]) -> np.ndarray:
    """The part labels (256, 128) uint8 of one row of ``attributes.json``, rebuilt by rendering it
    again."""
    scene = Scene(row["view"], row["camera"], row["scene_seed"])
    person = Identity(**row["attributes"])
    _, labels = render(person, scene, DOMAINS[domain].style)
    return labels


def synthetic_dataset(
    name: str,
    root: str | Path | None = None,
    seed: int = 0,
    identities: tuple[int, int, int] = IDENTITIES,
) -> Path:
    """The folder of ``SynthPEDES-A``, ``-B`` or ``-C``, rendered on first use.

    ``root`` None keeps it in the cache, keyed by the recipe and its :data:`VERSION`; otherwise it
    is ``root/name``, rendered if absent. It appears whole or not at all, also when interrupted or
    when two processes render it at once.
    """
    domain = name.removeprefix("SynthPEDES-")
    if name == domain or domain not in DOMAINS:
        raise ConfigurationError(
            f"{name!r} is no synthetic dataset; choose SynthPEDES-A, SynthPEDES-B or SynthPEDES-C."
        )
    annotations = DOMAINS[domain].annotations
    if root is None:
        counts = "-".join(str(count) for count in identities)
        folder = cache_dir() / f"{name}-seed{seed}-{counts}-v{VERSION}"
    elif (Path(root) / annotations).is_file():
        folder = Path(root)
    else:
        folder = Path(root) / name
    if (folder / annotations).is_file():
        return folder
    if folder.exists():
        raise DataError(
            f"{folder} exists but holds no {annotations}; remove it or give another root."
        )
    _render_into(folder, domain, seed, identities)
    return folder


def _render_into(folder: Path, domain: str, seed: int, identities: tuple[int, int, int]) -> None:
    """Render beside ``folder`` and then rename, so that nobody sees half of it."""
    unfinished = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        write_dataset(domain, unfinished, seed, identities)
        unfinished.rename(folder)
    except OSError:
        another_process_was_first = (folder / DOMAINS[domain].annotations).is_file()
        if not another_process_was_first:
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
