"""The person-retrieval benchmarks, real and drawn, as :class:`PersonRetrievalDataset`: three splits
of images, identities and captions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cskt.data.layouts import SPLITS, Record, find_annotation, layout_of, read_records
from cskt.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """One split: N images and M captions, each caption of one image.

    ``image_identities`` (N,) int64, from 0 without gaps in train, as annotated elsewhere;
    ``caption_images`` (M,) int64, the index of each caption's image; ``cameras`` only where every
    record of the split names one; ``fingerprint`` is the data set's, "" for a split made by hand.
    """

    name: str
    image_paths: tuple[Path, ...]
    image_identities: np.ndarray
    captions: tuple[str, ...]
    caption_images: np.ndarray
    cameras: tuple[str, ...] | None = None
    fingerprint: str = ""

    @property
    def caption_identities(self) -> np.ndarray:
        """(M,) int64: the identity that each caption describes."""
        return self.image_identities[self.caption_images]

    def __len__(self) -> int:
        """Number of captions, which is the number of training pairs."""
        return len(self.captions)


@dataclass(frozen=True, eq=False)
class PersonRetrievalDataset:
    """A benchmark with its three splits.

    ``fingerprint`` is a SHA-256 (hex), the same wherever the data lie: of the annotation file and
    of every image's size in bytes, or, of SynthPEDES, of its recipe and of every record's split and
    identity, so that another Pillow's JPEG files change nothing. ``version`` is that of the recipe,
    None for real data. Where a layout has no val, ``val`` *is* ``test`` and ``notes`` says so.
    """

    name: str
    root: Path
    train: Split
    val: Split
    test: Split
    fingerprint: str
    notes: tuple[str, ...] = ()
    version: int | None = None

    @property
    def synthetic(self) -> bool:
        """Whether the people are drawn (SynthPEDES) rather than photographed."""
        return is_synthetic(self.name)


def is_synthetic(name: str) -> bool:
    """Whether data set ``name`` is a domain of SynthPEDES."""
    return name.startswith("SynthPEDES")


def load_dataset(name: str, root: str | Path | None = None) -> PersonRetrievalDataset:
    """Read one of :data:`cskt.config.DATASETS`.

    ``root`` is its folder, or the parent that holds ``name/``. SynthPEDES needs none: where it is
    not found it is rendered, into the cache or under ``root``. Raises
    :class:`cskt.errors.ConfigurationError` on an unknown name, and :class:`cskt.errors.DataError`
    on a missing annotation file or image, a malformed record, an empty split and SynthPEDES of
    another version.
    """
    layout = layout_of(name)
    path = find_annotation(name, root)
    if path is None and is_synthetic(name):
        from cskt.synthetic import synthetic_dataset  # the renderer is needed only here

        path = find_annotation(name, synthetic_dataset(name, root=root))
    if path is None:
        raise DataError(_not_found(name, root))

    records = read_records(path)
    if is_synthetic(name):
        recipe = read_recipe(path.parent)
        version = recipe["version"]
        fingerprint = _synthetic_fingerprint(recipe, records)
    else:
        version = None
        fingerprint = _real_fingerprint(path, records)

    splits = {}
    for split in SPLITS:
        splits[split] = _split(split, records, fingerprint)
    notes: tuple[str, ...] = ()
    if layout.val_optional and not splits["val"]:
        splits["val"] = splits["test"]
        notes = (f"{name} has no val split; test stands in",)
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise DataError(
            f"{path} has no record of split {' or '.join(empty)}; obtain the complete file."
        )
    return PersonRetrievalDataset(
        name=name,
        root=path.parent,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        fingerprint=fingerprint,
        notes=notes,
        version=version,
    )


def subset(split: Split, fraction: float, seed: int) -> Split:
    """The images and captions of a share of the identities, at least two of them, chosen by
    ``seed``: a smaller share is part of a larger one. Identities are renumbered from 0."""
    people = np.unique(split.image_identities)
    shuffled = np.random.default_rng(seed).permutation(people)
    chosen = shuffled[: max(2, round(fraction * len(people)))]
    images = np.flatnonzero(np.isin(split.image_identities, chosen))
    new_index = np.full(len(split.image_paths), -1)
    new_index[images] = np.arange(len(images))
    captions = np.flatnonzero(new_index[split.caption_images] >= 0)
    cameras = None
    if split.cameras is not None:
        cameras = tuple(split.cameras[image] for image in images)
    return Split(
        name=split.name,
        image_paths=tuple(split.image_paths[image] for image in images),
        image_identities=_from_zero(split.image_identities[images]),
        captions=tuple(split.captions[caption] for caption in captions),
        caption_images=new_index[split.caption_images[captions]],
        cameras=cameras,
        fingerprint=split.fingerprint,
    )


def read_recipe(folder: Path) -> dict[str, Any]:
    """``recipe.json`` of a rendered SynthPEDES.

    Raises :class:`cskt.errors.DataError` where it is missing, damaged or not of this renderer's
    version.
    """
    from cskt.synthetic import VERSION  # the renderer is needed only here

    path = folder / "recipe.json"
    advice = "remove that folder, and it is rendered anew, or give another root."
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        version = recipe["version"]
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds SynthPEDES of an older version, without recipe.json; {advice}"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read as a recipe ({error!r}); {advice}") from error
    if version != VERSION:
        raise DataError(
            f"{folder} holds SynthPEDES of version {version}, and this is version "
            f"{VERSION}; {advice}"
        )
    return recipe


def _not_found(name: str, root: str | Path | None) -> str:
    files = " or ".join(layout_of(name).files)
    looked = ""
    if root is not None:
        looked = f" (looked in {root} for {files} there and in {Path(root) / name})"
    return (
        f"{name} needs root: the folder that holds {files}, or its parent with {name}/ inside"
        f"{looked}."
    )


def _real_fingerprint(path: Path, records: list[Record]) -> str:
    """What is annotated, and the images as far as their sizes tell."""
    digest = hashlib.sha256(path.read_bytes())
    for record in records:
        digest.update(b"%d\n" % record.image.stat().st_size)
    return digest.hexdigest()


def _synthetic_fingerprint(recipe: dict[str, Any], records: list[Record]) -> str:
    """The recipe, which decides everything, and who is in the records."""
    canonical = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode())
    for record in records:
        digest.update(f"\n{record.split} {record.identity}".encode())
    return digest.hexdigest()


def _split(name: str, records: list[Record], fingerprint: str) -> Split:
    """The records of one split."""
    members = [record for record in records if record.split == name]
    identities = np.array([record.identity for record in members], dtype=np.int64)
    if name == "train":
        identities = _from_zero(identities)
    captions: list[str] = []
    caption_images: list[int] = []
    cameras: list[str] = []
    for index, record in enumerate(members):
        captions.extend(record.captions)
        caption_images.extend([index] * len(record.captions))
        if record.camera is not None:
            cameras.append(record.camera)
    return Split(
        name=name,
        image_paths=tuple(record.image for record in members),
        image_identities=identities,
        captions=tuple(captions),
        caption_images=np.array(caption_images, dtype=np.int64),
        cameras=tuple(cameras) if len(cameras) == len(members) else None,
        fingerprint=fingerprint,
    )


def _from_zero(identities: np.ndarray) -> np.ndarray:
    """Identities renumbered from 0 without gaps, in their order; int64."""
    _, numbers = np.unique(identities, return_inverse=True)
    return numbers.astype(np.int64)
