"""The person-retrieval benchmarks in their official layouts, read into :class:`PersonRetrievalDataset`.

Layouts read, for the real data and for the SynthPEDES domain written in the same layout:

- CUHK-PEDES, SynthPEDES-A: ``reid_raw.json`` with records ``split, captions, file_path, id``; or ``caption_all.json``,
  where records without ``split`` are divided by identity: 1-11003 train, 11004-12003 val, 12004-13003 test.
- ICFG-PEDES, SynthPEDES-B: ``ICFG-PEDES.json`` or ``ICFG_PEDES.json``, the same fields. The real set has no val.
- RSTPReid, SynthPEDES-C: ``data_captions.json``, with ``img_path`` in place of ``file_path``.

Either path field is read in every layout, split names in any case, and ``camera`` where it is a string; other fields
are ignored. Image paths are relative to ``imgs/`` beside the annotation file, or to the annotation file's folder.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cskt.config import DATASETS, CSKTError

_CUHK = ("reid_raw.json", "caption_all.json")
_ICFG = ("ICFG-PEDES.json", "ICFG_PEDES.json")
_RSTP = ("data_captions.json",)
ANNOTATIONS: dict[str, tuple[str, ...]] = dict(zip(DATASETS, 2 * (_CUHK, _ICFG, _RSTP), strict=True))
SPLITS = ("train", "val", "test")
_CAPTION_ALL_LAST_ID = {"train": 11003, "val": 12003, "test": 13003}


@dataclass(frozen=True, eq=False)
class Split:
    """One split: N images and M captions, each caption of one image.

    ``image_identities`` (N,) int64, from 0 without gaps in train, as annotated elsewhere; ``caption_images`` (M,)
    int64, the index of each caption's image; ``cameras`` only where every record of the split names one.
    """

    name: str
    image_paths: tuple[Path, ...]
    image_identities: np.ndarray
    captions: tuple[str, ...]
    caption_images: np.ndarray
    cameras: tuple[str, ...] | None = None

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

    ``fingerprint`` is the SHA-256 (hex) of the annotation file's bytes followed by the size in bytes of every image in
    the order of the records: the same wherever the data lie, cheap, and changed by any edit that moves a caption,
    an identity, a split or an image's size. Where a layout has no val, ``val`` *is* ``test`` and ``notes`` says so.
    """

    name: str
    root: Path
    train: Split
    val: Split
    test: Split
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether the people are drawn (SynthPEDES) rather than photographed."""
        return self.name.startswith("SynthPEDES")


@dataclass(frozen=True)
class Record:
    """One annotated image, checked: its split in lower case, its path as written."""

    split: str
    image: str
    identity: int
    captions: tuple[str, ...]
    camera: str | None


def load_dataset(name: str, root: str | Path | None = None) -> PersonRetrievalDataset:
    """Read a benchmark.

    Args:
        name: one of :data:`cskt.config.DATASETS`.
        root: the data set's folder, or its parent holding ``name/``. SynthPEDES needs none: it is rendered into the
            cache (or under ``root``) when it is not there.

    Raises:
        CSKTError: unknown name, annotation file not found, a malformed record, a missing image, an empty split.
    """
    if name not in ANNOTATIONS:
        raise CSKTError(f"data set {name!r} is unknown; choose one of {', '.join(DATASETS)}.")
    annotation = find_annotation(name, root) if root is not None else None
    if annotation is None and name.startswith("SynthPEDES"):
        from cskt.data.synthetic import synthetic_dataset  # the renderer is needed only here

        root = synthetic_dataset(name, root=root)
        annotation = find_annotation(name, root)
    if annotation is None:
        files = " or ".join(ANNOTATIONS[name])
        if root is None:
            raise CSKTError(f"{name} needs root: the folder that holds {files}, or its parent with {name}/ inside.")
        raise CSKTError(f"{name} is not in {root}: looked for {files} there and in {Path(root) / name}; pass the "
                        f"folder that holds the annotation file as root.")
    return _assemble(name, annotation)


def find_annotation(name: str, root: str | Path) -> Path | None:
    """The annotation file of ``name`` in ``root`` or ``root/name``, the preferred file name first; None without."""
    root = Path(root).expanduser()
    candidates = (folder / file for folder in (root, root / name) for file in ANNOTATIONS[name])
    return next((path for path in candidates if path.is_file()), None)


def read_records(annotation: Path) -> list[Record]:
    """Parse and check an annotation file; the :class:`CSKTError` names the record's index (from 0) and the field."""
    try:
        raw = json.loads(annotation.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CSKTError(f"{annotation} is not valid JSON ({error}); obtain the file again.") from error
    if not isinstance(raw, list) or not raw:
        raise CSKTError(f"{annotation} must hold a list of records with at least one entry; obtain the file again.")
    by_identity = annotation.name == "caption_all.json" and not any("split" in r for r in raw if isinstance(r, dict))
    records = []
    for index, entry in enumerate(raw):
        try:
            records.append(_record(entry, by_identity))
        except CSKTError as error:
            raise CSKTError(f"{annotation}: record {index}: {error}") from error
    return records


def _record(entry: Any, split_by_identity: bool) -> Record:
    if not isinstance(entry, dict):
        raise CSKTError(f"must be an object with fields, got {_kind(entry)}; correct or remove it.")
    path_field = "img_path" if "img_path" in entry and "file_path" not in entry else "file_path"
    image = entry.get(path_field)
    _field(entry, path_field, isinstance(image, str) and image.strip(), "a path", " (or 'img_path')")
    identity = entry.get("id")
    _field(entry, "id", isinstance(identity, int) and not isinstance(identity, bool) and abs(identity) < 2**63,
           "an integer")
    captions = entry.get("captions")
    _field(entry, "captions", isinstance(captions, list) and captions and all(isinstance(c, str) for c in captions),
           "a list of at least one string")
    if split_by_identity:
        split = next((name for name, last in _CAPTION_ALL_LAST_ID.items() if 1 <= identity <= last), None)
        if split is None:
            raise CSKTError(f"field 'id' must be from 1 to 13003 where records have no split, got {identity}; "
                            f"use reid_raw.json.")
    else:
        split = str(entry.get("split")).strip().lower()
        _field(entry, "split", isinstance(entry.get("split"), str) and split in SPLITS, "'train', 'val' or 'test'")
    camera = entry.get("camera")
    return Record(split, image, identity, tuple(captions), camera if isinstance(camera, str) else None)


def _field(entry: dict, name: str, holds: Any, expected: str, alias: str = "") -> None:
    if name not in entry:
        raise CSKTError(f"field '{name}'{alias} is missing; it must be {expected}.")
    if not holds:
        shown = repr(entry[name])
        raise CSKTError(f"field '{name}' must be {expected}, got {_kind(entry[name])} "
                        f"{shown if len(shown) <= 60 else shown[:57] + '...'}; correct the annotation.")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _assemble(name: str, annotation: Path) -> PersonRetrievalDataset:
    records = read_records(annotation)
    digest = hashlib.sha256(annotation.read_bytes())
    folder = annotation.parent
    paths = []
    for index, record in enumerate(records):
        path, size = _locate(folder, record.image)
        if path is None:
            raise CSKTError(f"{annotation}: record {index}: image {folder / 'imgs' / record.image} is missing (also "
                            f"looked for {folder / record.image}); put the images of {name} there.")
        paths.append(path)
        digest.update(b"%d\n" % size)
    splits = {split: _split(split, records, paths) for split in SPLITS if any(r.split == split for r in records)}
    notes: tuple[str, ...] = ()
    if "val" not in splits and "test" in splits and ANNOTATIONS[name] == _ICFG:
        splits["val"] = splits["test"]
        notes = (f"{name} has no val split; test stands in",)
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        raise CSKTError(f"{annotation} has no record of split {' or '.join(missing)}; obtain the complete file.")
    return PersonRetrievalDataset(name, folder, **splits, fingerprint=digest.hexdigest(), notes=notes)


def _locate(folder: Path, image: str) -> tuple[Path | None, int]:
    for path in (folder / "imgs" / image, folder / image):
        try:
            status = path.stat()
        except (OSError, ValueError):  # ValueError: a NUL in the path
            continue
        if stat.S_ISREG(status.st_mode):
            return path, status.st_size
    return None, 0


def _split(name: str, records: list[Record], paths: list[Path]) -> Split:
    chosen = [index for index, record in enumerate(records) if record.split == name]
    identities = np.array([records[index].identity for index in chosen], dtype=np.int64)
    if name == "train":
        identities = np.unique(identities, return_inverse=True)[1].astype(np.int64)
    counts = [len(records[index].captions) for index in chosen]
    cameras = tuple(records[index].camera for index in chosen)
    return Split(
        name=name,
        image_paths=tuple(paths[index] for index in chosen),
        image_identities=identities,
        captions=tuple(caption for index in chosen for caption in records[index].captions),
        caption_images=np.repeat(np.arange(len(chosen), dtype=np.int64), counts),
        cameras=cameras if all(camera is not None for camera in cameras) else None,
    )
