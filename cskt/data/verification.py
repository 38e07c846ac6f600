"""Whether a copy of a benchmark is complete and sound: :func:`verify` reports everything, not only
the first fault."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from cskt.backbones import clip_tokenizer
from cskt.config import DATASETS
from cskt.data.benchmarks import (
    _ANNOTATIONS,
    _ICFG,
    _find_annotation,
    _read_recipe,
    _read_records,
    _Record,
    _record,
    load_dataset,
)
from cskt.data.images import on_all_cores, read_image, reason, stale_caches
from cskt.errors import CSKTError

CONTEXT = 77  # CLIP's text length in tokens, start and end included
FIRST = 10  # names in one message; lines of one kind in the table
SPLITS = ("train", "val", "test")
COUNTED = ("images", "identities", "captions")
# As published by Li et al. (2017), Ding et al. (2021) and Zhu et al. (2021), references.bib.
# Captions of CUHK-PEDES are those of reid_raw.json; caption_all.json has two per image by the
# authors' readme, so there that is right as well.
PUBLISHED = {
    "CUHK-PEDES": {
        "train": (34054, 11003, 68126),
        "val": (3078, 1000, 6158),
        "test": (3074, 1000, 6156),
    },
    "ICFG-PEDES": {"train": (34674, 3102, 34674), "test": (19848, 1000, 19848)},
    "RSTPReid": {
        "train": (18505, 3701, 37010),
        "val": (1000, 200, 2000),
        "test": (1000, 200, 2000),
    },
}


@dataclass(frozen=True)
class Finding:
    """What is wrong, ``where`` (split, record, folder or file) and, in ``message``, what to do
    about it.

    ``kind``: version (of SynthPEDES), counts, record (malformed), missing, identity, caption, path
    (listed twice), image, duplicate or cache.
    """

    kind: str
    where: str
    message: str


@dataclass(frozen=True)
class Report:
    """What :func:`verify` found; ``counts``, of well-formed records with or without image, as in
    :data:`PUBLISHED`."""

    name: str
    annotation: Path
    deep: bool
    counts: dict[str, tuple[int, int, int]]
    faults: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for json."""
        counts, published = (
            {split: dict(zip(COUNTED, numbers, strict=True)) for split, numbers in table.items()}
            for table in (self.counts, PUBLISHED.get(self.name, {}))
        )
        return {
            **asdict(self),
            "annotation": str(self.annotation),
            "counts": counts,
            "published": published,
        }

    def to_text(self) -> str:
        """A table for people: the counts, then one line per finding, at most :data:`FIRST` of a
        kind."""
        lines = [
            f"{self.name}: {self.annotation}",
            "split " + "".join(f"{what:>12}" for what in COUNTED) + "   published",
        ]
        for split, numbers in self.counts.items():
            published = (
                " / ".join(f"{number:,}" for number in PUBLISHED.get(self.name, {}).get(split, ()))
                or "-"
            )
            lines.append(
                f"{split:6}" + "".join(f"{number:12,}" for number in numbers) + f"   {published}"
            )
        for severity, findings in (("fault", self.faults), ("note", self.notes)):
            for kind, group in groupby(
                findings, key=lambda finding: finding.kind
            ):  # they come ordered by kind
                told = [f"{severity}: {finding.where}: {finding.message}" for finding in group]
                lines += told[:FIRST]
                if len(told) > FIRST:
                    lines.append(
                        f"{severity}: {len(told) - FIRST:,} more of kind {kind!r}; --json lists all"
                    )
        lines.append(
            f"faults: {len(self.faults):,}, notes: {len(self.notes):,}"
            + ("" if self.deep else " (images were not opened; --deep decodes every one)")
        )
        # Whatever the annotation holds (line ends, control characters, lone surrogates), a line
        # stays one line.
        return "\n".join(
            "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines
        )


Checks = Iterator[tuple[bool, Finding]]  # with whether it is a fault or only a note
Progress = Callable[[Iterable, str, int], Iterable]


def verify(
    name: str, root: str | Path, deep: bool = False, progress: Progress | None = None
) -> Report:
    """Check the copy of data set ``name`` in ``root``, which is its folder or the parent that holds
    ``name/``.

    ``deep`` also decodes every image, on all cores, and compares what the image cache holds of
    whole splits with their files. ``progress(iterable, description, total)`` wraps the long loops;
    tqdm fits. Raises :class:`CSKTError` where there is nothing to check: an unknown name, an
    annotation file that is missing or is not a JSON list.
    """
    if name not in _ANNOTATIONS:
        raise CSKTError(f"data set {name!r} is unknown; choose one of {', '.join(DATASETS)}.")
    annotation = _find_annotation(name, root)
    if annotation is None:
        raise CSKTError(
            f"{name} is not in {root}: looked for {' or '.join(_ANNOTATIONS[name])} there and in "
            f"{Path(root) / name}; pass the folder that holds the annotation file as root."
        )
    progress = progress or (lambda items, description, total: items)
    records, missing, malformed = _read(annotation)
    splits = {
        split: [record for record in records.values() if record.split == split] for split in SPLITS
    }
    counts = {
        split: (
            len(members),
            len({record.identity for record in members}),
            sum(len(record.captions) for record in members),
        )
        for split, members in splits.items()
    }
    found = [
        *_check_version(name, annotation.parent),
        *_check_counts(name, annotation, counts),
        *malformed,
        *_check_identities(splits),
        *_check_captions(records, progress),
        *_check_images(records, missing, annotation.parent, deep, progress),
    ]
    if deep:
        found += _check_caches(name, annotation.parent)
    faults, notes = (
        tuple(finding for fault, finding in found if fault is kept) for kept in (True, False)
    )
    return Report(name, annotation, deep, counts, faults, notes)


def _read(annotation: Path) -> tuple[dict[int, _Record], set[Path], list[tuple[bool, Finding]]]:
    """The well-formed records by their index, the images that are missing, and the faults so
    far."""
    try:
        entries = json.loads(annotation.read_bytes().decode("utf-8-sig"))
    except ValueError:
        entries = None
    if not isinstance(entries, list) or not entries:
        _read_records(annotation)  # raises, in the loader's words
    with_split = any("split" in entry for entry in entries if isinstance(entry, dict))
    by_identity = annotation.name == "caption_all.json" and not with_split
    folder, records, missing, found = annotation.parent, {}, defaultdict(list), []
    for index, entry in enumerate(entries):
        try:
            records[index] = _record(entry, folder, by_identity, "")
        except CSKTError as error:
            if str(error).startswith(
                " image "
            ):  # the loader's last check: all else is sound, and counts
                path = folder / "imgs" / entry.get("file_path", entry.get("img_path"))
                missing[path.parent].append(path)
                with_image = {**entry, "file_path": annotation.name}  # a file that is there
                records[index] = _record(with_image, folder, by_identity, "")._replace(image=path)
            else:
                found.append((True, Finding("record", f"record {index}", str(error).strip())))
    for parent, paths in missing.items():
        found.append(
            (
                True,
                Finding(
                    "missing",
                    os.path.relpath(parent, folder),
                    (
                        f"missing images: {len(paths):,} ({_some(path.name for path in paths)}), looked for without imgs/ too; "
                        "unpack the folder again"
                    ),
                ),
            )
        )
    return records, {path for paths in missing.values() for path in paths}, found


def _check_version(name: str, folder: Path) -> Checks:
    if name.startswith("SynthPEDES"):
        try:
            _read_recipe(folder)
        except CSKTError as error:
            yield True, Finding("version", "recipe.json", str(error).removesuffix("."))


def _check_caches(name: str, folder: Path) -> Checks:
    try:
        data = load_dataset(name, folder)
    except CSKTError:  # reported already; and what cannot be loaded has no cache in use
        return
    splits = [data.train, data.val] + ([] if data.test is data.val else [data.test])
    for split in splits:
        try:
            for path, different in stale_caches(split):
                if different:
                    told = _some(os.path.relpath(file, folder) for file in different)
                    yield (
                        True,
                        Finding(
                            "cache",
                            split.name,
                            (
                                f"{path} holds other pixels than the files: {len(different):,} ({told}); "
                                "remove it"
                            ),
                        ),
                    )
        except CSKTError:  # an image that cannot be decoded, reported already
            continue


def _check_counts(name: str, annotation: Path, counts: dict[str, tuple[int, int, int]]) -> Checks:
    for split, numbers in counts.items():
        published = PUBLISHED.get(name, {}).get(split)
        if published and annotation.name == "caption_all.json" and numbers[2] == 2 * numbers[0]:
            published = (*published[:2], 2 * published[0])
        if published and numbers != published:
            wrong = [
                f"{number:,} {what} instead of {right:,}"
                for what, number, right in zip(COUNTED, numbers, published, strict=True)
                if number != right
            ]
            yield (
                True,
                Finding("counts", split, f"{', '.join(wrong)}; obtain the complete data set"),
            )
        elif not published and not any(numbers):
            stands_in = split == "val" and _ANNOTATIONS[name] == _ICFG
            advice = "test stands in for it" if stands_in else "obtain the complete data set"
            yield not stands_in, Finding("counts", split, f"no records; {advice}")


def _check_identities(splits: dict[str, list[_Record]]) -> Checks:
    for one, other in combinations(splits, 2):
        first, second = ({record.identity for record in splits[split]} for split in (one, other))
        if both := sorted(first & second):
            yield (
                True,
                Finding(
                    "identity",
                    f"{one}, {other}",
                    (
                        f"identities in both: {len(both):,} ({_some(both)}); obtain the annotation again"
                    ),
                ),
            )


def _check_captions(records: dict[int, _Record], progress: Progress) -> Checks:
    encode, long = clip_tokenizer(context_length=CONTEXT).encode, defaultdict(list)
    for index, record in progress(records.items(), "captions", len(records)):
        lengths = [len(encode(caption)) for caption in record.captions]
        if empty := [number for number, length in enumerate(lengths, start=1) if not length]:
            yield (
                True,
                Finding(
                    "caption",
                    f"record {index}",
                    (
                        f"empty captions: {len(empty)} of {len(lengths)} (number {_some(empty)}); write or remove them"
                    ),
                ),
            )
        long[record.split] += [(length + 2, index) for length in lengths if length + 2 > CONTEXT]
    for split, tokens in long.items():
        if tokens:
            yield (
                False,
                Finding(
                    "caption",
                    split,
                    (
                        f"captions over {CONTEXT} tokens: {len(tokens):,} (longest "
                        f"{max(tokens)[0]}, record {max(tokens)[1]}); they are cut"
                    ),
                ),
            )


def _check_images(
    records: dict[int, _Record], missing: set[Path], folder: Path, deep: bool, progress: Progress
) -> Checks:
    listed, same = defaultdict(list), defaultdict(list)
    for index, record in records.items():
        listed[record.image].append(index)
    names = {path: os.path.relpath(path, folder) for path in listed}
    for path, indices in listed.items():
        if len(indices) > 1:
            # Of one split and person it is a matter of layout, and one official annotation is said
            # to do so.
            apart = len({(records[index].split, records[index].identity) for index in indices}) > 1
            yield (
                apart,
                Finding(
                    "path", names[path], f"listed by records {_some(indices)}; merge them into one"
                ),
            )
    sizes = {path: path.stat().st_size for path in listed if path not in missing}
    of_size = Counter(sizes.values())
    opened = [path for path, size in sizes.items() if deep or not size or of_size[size] > 1]
    with on_all_cores(partial(_examine, deep=deep), opened) as examined:
        for path, (damage, digest) in zip(
            opened, progress(examined, "images", len(opened)), strict=True
        ):
            if damage:
                yield (
                    True,
                    Finding(
                        "image", names[path], f"{damage}; restore it from the original archive"
                    ),
                )
            else:
                same[digest].append(path)
    for paths in same.values():
        if len(paths) > 1:
            members = [records[index] for path in paths for index in listed[path]]
            splits = [split for split in SPLITS if any(record.split == split for record in members)]
            people = sorted({record.identity for record in members})
            yield (
                len(splits) > 1,
                Finding(
                    "duplicate",
                    ", ".join(splits),
                    (
                        f"the same file: {_some(names[path] for path in paths)} (identity {_some(people)}); keep one of them"
                    ),
                ),
            )


def _examine(path: Path, deep: bool) -> tuple[str, str]:
    """What is wrong with an image file, or else its SHA-256."""
    try:
        content = path.read_bytes()
        if not content:
            return "has 0 bytes", ""
        if deep:
            read_image(io.BytesIO(content))  # decodes all of it, as training does
    except CSKTError as error:
        return str(error), ""
    except OSError as error:
        return f"cannot be read ({reason(error)})", ""
    return "", hashlib.sha256(content).hexdigest()


def _some(names: Iterable) -> str:
    names = list(names)
    return ", ".join(map(str, names[:FIRST])) + (", ..." if len(names) > FIRST else "")
