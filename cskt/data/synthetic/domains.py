"""SynthPEDES: three domains, each written to disk in one official layout, so that the real loaders read it.

A has CUHK-PEDES' layout, B ICFG-PEDES', C RSTPReid's. ``attributes.json`` beside the annotations holds the attribute
table and what rebuilds every label map (:func:`label_map`). Deterministic by seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from cskt.config import CSKTError, cache_dir

from .captions import caption, visible_attributes
from .identities import Identity, sample_identity
from .render import Scene, Style, render

IDENTITIES = (300, 50, 300)
IMAGES_PER_IDENTITY, CAPTIONS_PER_IMAGE, CAMERAS = 4, 2, 5
VIEWS = ("front", "back", "left", "right")

DOMAINS: dict[str, Style] = {
    "A": Style(light=(0.80, 1.10), tints=((255, 252, 244), (244, 250, 255), (255, 246, 232), (250, 255, 250),
                                          (240, 244, 255)),
               saturation=0.92, palette_shift=14.0, noise=6.0, blur=(0.0, 0.8), occlusion=0.15),
    "B": Style(light=(0.62, 0.95), tints=((226, 240, 255), (236, 246, 255), (220, 232, 250), (240, 240, 255),
                                          (228, 246, 246)),
               saturation=0.78, contrast=0.85, palette_shift=16.0, noise=9.0, blur=(0.3, 1.0), outline=0.15,
               occlusion=0.22, crop=0.06),
    "C": Style(light=(0.70, 1.15), tints=((255, 238, 208), (255, 228, 196), (255, 244, 224), (250, 232, 220),
                                          (255, 236, 214)),
               saturation=1.0, contrast=1.05, palette_shift=18.0, noise=8.0, blur=(0.0, 1.0), outline=0.2,
               occlusion=0.18, crop=0.05),
}
_SEEDS = {"A": 11, "B": 22, "C": 33}


def _shots(person: Identity, domain: str, rng: np.random.Generator) -> Iterator[tuple[Scene, np.ndarray, np.ndarray]]:
    """Four images of one person: four views and four cameras."""
    for view, camera in zip(rng.permutation(VIEWS), rng.permutation(CAMERAS)[:IMAGES_PER_IDENTITY], strict=True):
        scene = Scene(str(view), int(camera), int(rng.integers(2**31)))
        yield scene, *render(person, scene, DOMAINS[domain])


def _record(domain: str, split: str, identity: int, path: str, captions: list[str], camera: int) -> dict[str, Any]:
    """One annotation record in the domain's official layout."""
    common = {"split": split, "captions": captions, "id": identity, "camera": f"c{camera + 1}"}
    if domain == "C":
        return {**common, "img_path": path}
    words = [caption_text.lower().replace(".", " .").replace(",", " ,").split() for caption_text in captions]
    return {**common, "file_path": path, "processed_tokens": words}


ANNOTATIONS = {"A": "reid_raw.json", "B": "ICFG-PEDES.json", "C": "data_captions.json"}


def _image_path(domain: str, split: str, identity: int, shot: int, camera: int) -> str:
    if domain == "A":
        return f"cam_{camera + 1}/{identity:04d}_{shot}.jpg"
    if domain == "B":
        return f"{split}/{identity:04d}/{identity:04d}_{shot}_c{camera + 1}.jpg"
    return f"{identity:04d}_c{camera + 1}_{shot:04d}.jpg"


def write_dataset(domain: str, folder: Path, seed: int = 0, identities: tuple[int, int, int] = IDENTITIES) -> None:
    """Render domain ``A``, ``B`` or ``C`` into ``folder``: annotations, ``imgs/`` and ``attributes.json``."""
    rng = np.random.default_rng((_SEEDS[domain], seed))
    splits = [split for split, count in zip(("train", "val", "test"), identities, strict=True) for _ in range(count)]
    records, table = [], []
    for identity, split in enumerate(tqdm(splits, desc=f"rendering SynthPEDES-{domain}", unit="id"), start=1):
        person = sample_identity(rng)
        for shot, (scene, image, labels) in enumerate(_shots(person, domain, rng)):
            path = _image_path(domain, split, identity, shot, scene.camera)
            target = folder / "imgs" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target, quality=92)
            texts = [caption(person, labels, scene.view, domain, rng) for _ in range(CAPTIONS_PER_IMAGE)]
            records.append(_record(domain, split, identity, path, texts, scene.camera))
            table.append({"path": path, "id": identity, "split": split, "view": scene.view, "camera": scene.camera,
                          "scene_seed": scene.seed, "shown": visible_attributes(person, labels, scene.view),
                          "attributes": person.to_dict()})
    (folder / "attributes.json").write_text(json.dumps(table))
    (folder / ANNOTATIONS[domain]).write_text(json.dumps(records, indent=1))


def label_map(domain: str, row: dict[str, Any]) -> np.ndarray:
    """The part labels (128, 64) uint8 of one row of ``attributes.json``, rebuilt by rendering it again."""
    scene = Scene(row["view"], row["camera"], row["scene_seed"])
    return render(Identity(**row["attributes"]), scene, DOMAINS[domain])[1]


def _recipe_digest() -> str:
    """Identifies the renderer and grammar, so that data of another version is never taken for this one's."""
    digest = hashlib.sha256()
    for name in ("identities", "figure", "render", "captions", "domains"):
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:8]


def synthetic_dataset(name: str, root: str | Path | None = None, seed: int = 0,
                      identities: tuple[int, int, int] = IDENTITIES) -> Path:
    """The folder of ``SynthPEDES-A``, ``-B`` or ``-C``, rendered on first use.

    ``root`` None keeps it in the cache, keyed by the recipe; otherwise it is ``root/name``, rendered if absent. It
    appears whole or not at all, also when interrupted or when two processes render it at once.
    """
    domain = name.removeprefix("SynthPEDES-")
    if name == domain or domain not in DOMAINS:
        raise CSKTError(f"{name!r} is no synthetic dataset; choose one of {', '.join('SynthPEDES-' + d for d in DOMAINS)}.")
    if root is None:
        size = "-".join(map(str, identities))
        folder = cache_dir() / f"{name}-seed{seed}-{size}-{_recipe_digest()}"
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
