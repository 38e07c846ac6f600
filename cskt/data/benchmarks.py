"""The person-retrieval benchmarks in their official layouts, read into
:class:`PersonRetrievalDataset`.

- CUHK-PEDES, SynthPEDES-A: ``reid_raw.json`` with records ``split, captions, file_path, id``; or
  ``caption_all.json``, where records without ``split`` are divided by identity: 1-11003 train,
  11004-12003 val, 12004-13003 test.
- ICFG-PEDES, SynthPEDES-B: ``ICFG-PEDES.json`` or ``ICFG_PEDES.json``, the same fields. The real
  set has no val.
- RSTPReid, SynthPEDES-C: ``data_captions.json``, with ``img_path`` in place of ``file_path``.

Either path field is read in every layout, split names in any case, and ``camera`` where it is a
string; other fields are ignored. Image paths are relative to ``imgs/`` beside the annotation file,
or to the annotation file's folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os.path
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cskt.config import DATASETS
from cskt.errors import CSKTError

_ICFG = ("ICFG-PEDES.json", "ICFG_PEDES.json")
_LAYOUTS = (("reid_raw.json", "caption_all.json"), _ICFG, ("data_captions.json",))
_ANNOTATIONS: dict[str, tuple[str, ...]] = dict(zip(DATASETS, 2 * _LAYOUTS, strict=True))
_LAST_IDENTITY = {"train": 11003, "val": 12003, "test": 13003}  # of caption_all.json without split


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
        return self.name.startswith("SynthPEDES")


class _Record(NamedTuple):
    split: str
    image: Path
    identity: int
    captions: list[str]
    camera: str | None


def load_dataset(name: str, root: str | Path | None = None) -> PersonRetrievalDataset:
    """Read one of :data:`cskt.config.DATASETS`.

    ``root`` is its folder, or the parent that holds ``name/``. SynthPEDES needs none: where it is
    not found it is rendered, into the cache or under ``root``. Raises :class:`CSKTError` on an
    unknown name, a missing annotation file or image, a malformed record, an empty split and
    SynthPEDES of another version.
    """
    if name not in _ANNOTATIONS:
        raise CSKTError(f"data set {name!r} is unknown; choose one of {', '.join(DATASETS)}.")
    annotation = _find_annotation(name, root)
    if annotation is None and name.startswith("SynthPEDES"):
        from cskt.data.synthetic import synthetic_dataset  # the renderer is needed only here

        annotation = _find_annotation(name, synthetic_dataset(name, root=root))
    if annotation is None:
        files = " or ".join(_ANNOTATIONS[name])
        looked = (
            ""
            if root is None
            else f" (looked in {root} for {files} there and in {Path(root) / name})"
        )
        raise CSKTError(
            f"{name} needs root: the folder that holds {files}, or its parent with {name}/ inside{looked}."
        )
    records = _read_records(annotation)
    if name.startswith("SynthPEDES"):
        recipe = _read_recipe(annotation.parent)
        version, fingerprint = recipe["version"], _synthetic_fingerprint(recipe, records)
    else:
        version, fingerprint = None, _fingerprint(annotation, records)
    splits = {}
    for split in _LAST_IDENTITY:
        members = [record for record in records if record.split == split]
        splits[split] = _split(split, members, fingerprint)
    notes: tuple[str, ...] = ()
    if not splits["val"] and _ANNOTATIONS[name] == _ICFG:
        splits["val"] = splits["test"]
        notes = (f"{name} has no val split; test stands in",)
    if missing := [name for name, split in splits.items() if not split]:
        raise CSKTError(
            f"{annotation} has no record of split {' or '.join(missing)}; obtain the complete file."
        )
    return PersonRetrievalDataset(
        name, annotation.parent, **splits, fingerprint=fingerprint, notes=notes, version=version
    )


def subset(split: Split, fraction: float, seed: int) -> Split:
    """The images and captions of a share of the identities, at least two of them, chosen by
    ``seed``: a smaller share is part of a larger one. Identities are renumbered from 0."""
    people = np.unique(split.image_identities)
    chosen = np.random.default_rng(seed).permutation(people)[
        : max(2, round(fraction * len(people)))
    ]
    images = np.flatnonzero(np.isin(split.image_identities, chosen))
    place = np.full(len(split.image_paths), -1)
    place[images] = np.arange(len(images))
    captions = np.flatnonzero(place[split.caption_images] >= 0)
    return Split(
        split.name,
        tuple(split.image_paths[i] for i in images),
        np.unique(split.image_identities[images], return_inverse=True)[1].astype(np.int64),
        tuple(split.captions[i] for i in captions),
        place[split.caption_images[captions]],
        split.cameras and tuple(split.cameras[i] for i in images),
        split.fingerprint,
    )


def _find_annotation(name: str, root: str | Path | None) -> Path | None:
    folders = [] if root is None else [Path(root).expanduser(), Path(root).expanduser() / name]
    candidates = (folder / file for folder in folders for file in _ANNOTATIONS[name])
    return next((path for path in candidates if path.is_file()), None)


def _read_records(annotation: Path) -> list[_Record]:
    try:
        entries = json.loads(annotation.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CSKTError(
            f"{annotation} is not valid JSON ({error}); obtain the file again."
        ) from error
    if not isinstance(entries, list) or not entries:
        raise CSKTError(
            f"{annotation} must hold a list of records with at least one entry; obtain the file again."
        )
    with_split = any("split" in entry for entry in entries if isinstance(entry, dict))
    by_identity = annotation.name == "caption_all.json" and not with_split
    return [
        _record(entry, annotation.parent, by_identity, f"{annotation}: record {index}:")
        for index, entry in enumerate(entries)
    ]


def _record(entry: Any, folder: Path, by_identity: bool, where: str) -> _Record:
    """One entry, checked; ``where`` (file and index from 0) opens the error, which names the
    field."""
    if not isinstance(entry, dict):
        raise CSKTError(
            f"{where} must be an object with fields, got {type(entry).__name__}; correct or remove it."
        )
    path_field = "img_path" if "img_path" in entry and "file_path" not in entry else "file_path"
    field = functools.partial(_field, entry, where)
    image = field(
        path_field, lambda v: isinstance(v, str) and v.strip(), "a path (here or in 'img_path')"
    )
    identity = field("id", lambda v: type(v) is int and abs(v) < 2**63, "an integer")
    captions = field(
        "captions",
        lambda v: isinstance(v, list) and v and all(isinstance(c, str) for c in v),
        "a list of at least one string",
    )
    if by_identity:
        field("id", lambda v: 1 <= v <= 13003, "from 1 to 13003 where records have no split")
        split = next(name for name, last in _LAST_IDENTITY.items() if identity <= last)
    else:
        split = (
            field(
                "split",
                lambda v: isinstance(v, str) and v.strip().lower() in _LAST_IDENTITY,
                "'train', 'val' or 'test'",
            )
            .strip()
            .lower()
        )
    places = folder / "imgs" / image, folder / image
    path = next(
        (place for place in places if os.path.isfile(place)), None
    )  # unlike Path's, it takes any string
    if path is None:
        raise CSKTError(
            f"{where} image {places[0]} is missing (also looked for {places[1]}); put the images there."
        )
    camera = entry.get("camera")
    return _Record(split, path, identity, captions, camera if isinstance(camera, str) else None)


def _field(entry: dict, where: str, name: str, holds: Callable[[Any], Any], expected: str) -> Any:
    if name not in entry:
        raise CSKTError(f"{where} field '{name}' is missing; it must be {expected}.")
    value = entry[name]
    if not holds(value):
        kind = "null" if value is None else f"{type(value).__name__} {value!r:.60}"
        raise CSKTError(
            f"{where} field '{name}' must be {expected}, got {kind}; correct the annotation."
        )
    return value


def _fingerprint(annotation: Path, records: list[_Record]) -> str:
    """Of real data: what is annotated, and the images as far as their sizes tell."""
    digest = hashlib.sha256(annotation.read_bytes())
    for record in records:
        digest.update(b"%d\n" % record.image.stat().st_size)
    return digest.hexdigest()


def _synthetic_fingerprint(recipe: dict[str, Any], records: list[_Record]) -> str:
    """Of SynthPEDES: the recipe, which decides everything, and who is in the records."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode())
    for record in records:
        digest.update(f"\n{record.split} {record.identity}".encode())
    return digest.hexdigest()


def _read_recipe(folder: Path) -> dict[str, Any]:
    """``recipe.json`` of a rendered SynthPEDES.

    Raises :class:`CSKTError` where it is missing, damaged or not of this renderer's version.
    """
    from cskt.data.synthetic import VERSION  # the renderer is needed only here

    path = folder / "recipe.json"
    advice = "remove that folder, and it is rendered anew, or give another root."
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        version = recipe["version"]
    except FileNotFoundError:
        raise CSKTError(
            f"{folder} holds SynthPEDES of an older version, without recipe.json; {advice}"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CSKTError(f"{path} cannot be read as a recipe ({error!r}); {advice}") from error
    if version != VERSION:
        raise CSKTError(
            f"{folder} holds SynthPEDES of version {version}, and this is version "
            f"{VERSION}; {advice}"
        )
    return recipe


def _split(name: str, records: list[_Record], fingerprint: str = "") -> Split:
    identities = np.array([record.identity for record in records], dtype=np.int64)
    if name == "train":
        identities = np.unique(identities, return_inverse=True)[1].astype(np.int64)
    cameras = tuple(record.camera for record in records)
    counts = np.array([len(record.captions) for record in records], dtype=np.int64)
    return Split(
        name,
        tuple(record.image for record in records),
        identities,
        tuple(caption for record in records for caption in record.captions),
        np.repeat(np.arange(len(records)), counts),
        None if None in cameras else cameras,
        fingerprint,
    )
