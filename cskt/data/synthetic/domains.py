"""SynthPEDES: three domains, each written to disk in one official layout, so that the real loaders read it.

A has CUHK-PEDES' layout, B ICFG-PEDES', C RSTPReid's. ``attributes.json`` beside the annotations holds the attribute
table and what rebuilds every label map (:func:`label_map`). Deterministic by seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from cskt.config import CSKTError, cache_dir

from .captions import caption, visible_attributes
from .identities import Identity, sample_identity
from .render import Scene, Style, render

VERSION = 1  # of the recipe: raise when what is drawn or written changes; recipe.json names it
IDENTITIES = (300, 50, 300)
CAPTIONS_PER_IMAGE, CAMERAS = 2, 5
VIEWS = ("front", "back", "left", "right")  # one image each

# Far enough from the corpus' style that the backbone alone finds few people, near enough that all colours survive.
DOMAINS: dict[str, Style] = {
    "A": Style(light=(0.60, 0.90), tints=((214, 255, 226), (226, 255, 236), (206, 250, 222), (222, 252, 240),
                                          (214, 246, 230)),
               saturation=0.75, contrast=0.8, palette_shift=14.0, noise=7.0, blur=(0.0, 0.8), occlusion=0.15),
    "B": Style(light=(0.55, 0.85), tints=((226, 240, 255), (236, 246, 255), (220, 232, 250), (240, 240, 255),
                                          (228, 246, 246)),
               saturation=0.72, contrast=0.8, palette_shift=16.0, noise=9.0, blur=(0.3, 1.0), outline=0.15,
               occlusion=0.22, crop=0.06),
    "C": Style(light=(0.60, 0.95), tints=((255, 222, 176), (255, 212, 168), (255, 228, 190), (250, 218, 180),
                                          (255, 220, 172)),
               saturation=0.85, contrast=0.85, palette_shift=18.0, noise=8.0, blur=(0.0, 1.0), outline=0.2,
               occlusion=0.18, crop=0.05),
}
_SEEDS = {"A": 11, "B": 22, "C": 33}
ANNOTATIONS = {"A": "reid_raw.json", "B": "ICFG-PEDES.json", "C": "data_captions.json"}
_IMAGE_PATHS = {"A": "cam_{camera}/{identity:04d}_{shot}.jpg",
                "B": "{split}/{identity:04d}/{identity:04d}_{shot}_c{camera}.jpg",
                "C": "{identity:04d}_c{camera}_{shot:04d}.jpg"}


def _shots(person: Identity, domain: str, rng: np.random.Generator) -> Iterator[tuple[Scene, np.ndarray, np.ndarray]]:
    """Four images of one person: four views and four cameras."""
    for view, camera in zip(rng.permutation(VIEWS), rng.permutation(CAMERAS)[:len(VIEWS)], strict=True):
        scene = Scene(str(view), int(camera), int(rng.integers(2**31)))
        yield scene, *render(person, scene, DOMAINS[domain])


def write_dataset(domain: str, folder: Path, seed: int = 0, identities: tuple[int, int, int] = IDENTITIES) -> None:
    """Render domain ``A``, ``B`` or ``C`` into ``folder``: annotations, ``imgs/``,
    ``attributes.json`` and ``recipe.json``, which says what was rendered."""
    splits = [split for split, count in zip(("train", "val", "test"), identities, strict=True) for _ in range(count)]
    records, table = [], []
    bar = tqdm(splits, desc=f"rendering SynthPEDES-{domain}", unit="id", disable=None)  # on a terminal only
    for identity, split in enumerate(bar, start=1):
        rng = np.random.default_rng((_SEEDS[domain], seed, identity))  # one stream each: people do not hang on style
        person = sample_identity(rng)
        for shot, (scene, image, labels) in enumerate(_shots(person, domain, rng)):
            path = _IMAGE_PATHS[domain].format(split=split, identity=identity, shot=shot, camera=scene.camera + 1)
            target = folder / "imgs" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target, quality=92)
            texts = [caption(person, labels, scene.view, domain, rng) for _ in range(CAPTIONS_PER_IMAGE)]
            record = {"split": split, "captions": texts, "id": identity, "camera": f"c{scene.camera + 1}"}
            record["img_path" if domain == "C" else "file_path"] = path
            if domain != "C":
                record["processed_tokens"] = [re.sub(r"([.,])", r" \1", text.lower()).split() for text in texts]
            records.append(record)
            table.append({"path": path, "id": identity, "split": split, "view": scene.view, "camera": scene.camera,
                          "scene_seed": scene.seed, "shown": visible_attributes(person, labels, scene.view),
                          "attributes": asdict(person)})
    (folder / "attributes.json").write_text(json.dumps(table))
    recipe = {"name": f"SynthPEDES-{domain}", "version": VERSION, "seed": seed,
              "identities": list(identities)}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / ANNOTATIONS[domain]).write_text(json.dumps(records, indent=1))


def label_map(domain: str, row: dict[str, Any]) -> np.ndarray:
    """The part labels (128, 64) uint8 of one row of ``attributes.json``, rebuilt by rendering it again."""
    scene = Scene(row["view"], row["camera"], row["scene_seed"])
    return render(Identity(**row["attributes"]), scene, DOMAINS[domain])[1]


def _recipe_digest() -> str:
    """Identifies the renderer and grammar, so that data of another version is never taken for this one's."""
    sources = [Path(__file__).with_name(f"{name}.py").read_bytes()
               for name in ("identities", "figure", "render", "captions", "domains")]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:8]


def synthetic_dataset(name: str, root: str | Path | None = None, seed: int = 0,
                      identities: tuple[int, int, int] = IDENTITIES) -> Path:
    """The folder of ``SynthPEDES-A``, ``-B`` or ``-C``, rendered on first use.

    ``root`` None keeps it in the cache, keyed by the recipe; otherwise it is ``root/name``, rendered if absent. It
    appears whole or not at all, also when interrupted or when two processes render it at once.
    """
    domain = name.removeprefix("SynthPEDES-")
    if name == domain or domain not in DOMAINS:
        raise CSKTError(f"{name!r} is no synthetic dataset; choose SynthPEDES-A, SynthPEDES-B or SynthPEDES-C.")
    if root is None:
        folder = cache_dir() / f"{name}-seed{seed}-{'-'.join(map(str, identities))}-{_recipe_digest()}"
    else:
        folder = Path(root) if (Path(root) / ANNOTATIONS[domain]).is_file() else Path(root) / name
    if (folder / ANNOTATIONS[domain]).is_file():
        return folder
    if folder.exists():
        raise CSKTError(f"{folder} exists but holds no {ANNOTATIONS[domain]}; remove it or give another root.")
    part = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    try:
        part.mkdir(parents=True)
        write_dataset(domain, part, seed, identities)
        part.rename(folder)
    except OSError:
        if not (folder / ANNOTATIONS[domain]).is_file():  # not merely the other process's rename coming first
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
