"""The person-retrieval benchmarks, real and drawn, as :class:`PersonRetrievalDataset`: three splits
of images, identities and captions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cskt.config import DATASETS, SYNTHETIC_DATASETS
from cskt.data.layouts import find_annotation, layout_of, not_found, read_annotation
from cskt.data.own import read_own, split_off_val
from cskt.data.records import SPLITS, Annotation, Record
from cskt.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """One split: N images and M captions, each caption of one image.

    ``image_identities`` (N,) int64, from 0 without gaps in train, as annotated elsewhere;
    ``caption_images`` (M,) int64, the index of each caption's image; ``cameras`` only where every
    record of the split names one; ``fingerprint`` is the data set's, "" for a split made by hand;
    ``facts`` the further columns of one's own table, each with a value per image (None: without).
    """

    name: str
    image_paths: tuple[Path, ...]
    image_identities: np.ndarray
    captions: tuple[str, ...]
    caption_images: np.ndarray
    cameras: tuple[str, ...] | None = None
    fingerprint: str = ""
    facts: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

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
    None for real data. Where ICFG-PEDES has no val, ``val`` *is* ``test``; where data of one's own
    have none, it is a share of the training identities; ``notes`` says so.
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
    return name in SYNTHETIC_DATASETS


def load_dataset(
    name: str, root: str | Path | None = None, seed: int = 0
) -> PersonRetrievalDataset:
    """Read one of :data:`cskt.config.DATASETS`, or data of one's own under any other name.

    ``root`` is its folder, or the parent that holds ``name/``. SynthPEDES needs none: where it is
    not found it is rendered, into the cache or under ``root``. ``seed`` chooses the identities of
    val where one's own data have no val, and nothing else. Raises
    :class:`cskt.errors.ConfigurationError` on what cannot be a name, and
    :class:`cskt.errors.DataError` on a missing annotation file or image, an image outside the
    folder, a malformed record, an empty split and SynthPEDES of another version; in one's own data
    also on records that contradict or repeat each other (see :mod:`cskt.data.own`).
    """
    layout = layout_of(name)
    path = find_annotation(name, root)
    if path is None and is_synthetic(name):
        from cskt.synthetic import synthetic_dataset  # the renderer is needed only here

        path = find_annotation(name, synthetic_dataset(name, root=root))
    if path is None:
        if root is None:
            raise DataError(_needs_root(name))
        raise not_found(name, root)

    records = annotation_of(name, path).sound_records()
    notes: list[str] = []
    val_seed = None
    present = {record.split for record in records}
    if layout.own and "val" not in present and "train" in present:
        val_seed = seed
        try:
            records, note = split_off_val(records, seed)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        notes.append(f"val of {name} {note}")

    version = None
    if is_synthetic(name):
        recipe = read_recipe(path.parent)
        version = recipe["version"]
        fingerprint = _synthetic_fingerprint(recipe, records)
    else:
        fingerprint = _real_fingerprint(path, records, val_seed)

    splits = {}
    for split in SPLITS:
        splits[split] = _split(split, records, fingerprint)
    if layout.val_optional and not splits["val"]:
        splits["val"] = splits["test"]
        notes.append(f"{name} has no val split; test stands in")
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
        notes=tuple(notes),
        version=version,
    )


def annotation_of(name: str, path: Path) -> Annotation:
    """The annotation file of data set ``name``, read by its rules."""
    return read_own(path) if layout_of(name).own else read_annotation(path)


def subset(split: Split, fraction: float, seed: int) -> Split:
    """The images and captions of a share of the identities, at least two of them, chosen by
    ``seed``: a smaller share is part of a larger one. Identities are renumbered from 0."""
    people = np.unique(split.image_identities)
    shuffled = np.random.default_rng(seed).permutation(people)
    chosen = shuffled[: max(2, round(fraction * len(people)))]
    images = np.flatnonzero(np.isin(split.image_identities, chosen))
    part = of_images(split, images)
    return dataclasses.replace(part, image_identities=_from_zero(part.image_identities))


def of_images(split: Split, images: np.ndarray) -> Split:
    """The ``images`` (K,) of a split, ascending indices, with their captions."""
    new_index = np.full(len(split.image_paths), -1)
    new_index[images] = np.arange(len(images))
    captions = np.flatnonzero(new_index[split.caption_images] >= 0)
    cameras = None
    if split.cameras is not None:
        cameras = tuple(split.cameras[image] for image in images)
    facts = {}
    for fact, values in split.facts.items():
        facts[fact] = tuple(values[image] for image in images)
    return Split(
        name=split.name,
        image_paths=tuple(split.image_paths[image] for image in images),
        image_identities=split.image_identities[images],
        captions=tuple(split.captions[caption] for caption in captions),
        caption_images=new_index[split.caption_images[captions]],
        cameras=cameras,
        fingerprint=split.fingerprint,
        facts=facts,
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
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a recipe ({error!r}); {advice}") from error
    if version != VERSION:
        raise DataError(
            f"{folder} holds SynthPEDES of version {version}, and this is version "
            f"{VERSION}; {advice}"
        )
    return recipe


def _needs_root(name: str) -> str:
    layout = layout_of(name)
    files = " or ".join(layout.files)
    given = (
        f"{name} is none of {', '.join(DATASETS)}, and as data of your own" if layout.own else name
    )
    return f"{given} needs root: the folder that holds {files}, or its parent with {name}/ inside."


def _real_fingerprint(path: Path, records: list[Record], val_seed: int | None) -> str:
    """What is annotated, the images as far as their sizes tell, and by which seed val was split
    off (None: it was not)."""
    digest = hashlib.sha256(path.read_bytes())
    for record in records:
        digest.update(b"%d\n" % record.image.stat().st_size)
    if val_seed is not None:
        digest.update(b"val by seed %d" % val_seed)
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
        facts=_facts(members),
    )


def _facts(records: list[Record]) -> dict[str, tuple[Any, ...]]:
    """The facts of records by name, None where a record lacks one."""
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record.facts))
    facts = {}
    for name in names:
        facts[name] = tuple(record.facts.get(name) for record in records)
    return facts


def _from_zero(identities: np.ndarray) -> np.ndarray:
    """Identities renumbered from 0 without gaps, in their order; int64."""
    _, numbers = np.unique(identities, return_inverse=True)
    return numbers.astype(np.int64)
