"""Whether a copy of a benchmark is complete and sound: :func:`verify` reports everything, not only
the first fault."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import combinations
from pathlib import Path

from cskt.config import CSKTConfig
from cskt.data.audit import CONTEXT, Encode, Progress, audit_captions
from cskt.data.datasets import annotation_of, is_synthetic, load_dataset, read_recipe
from cskt.data.findings import PUBLISHED, Counts, Findings, Report, some
from cskt.data.images import damage, on_all_cores, read_image
from cskt.data.layouts import BY_IDENTITY, find_annotation, layout_of, not_found
from cskt.data.loading import stale_caches
from cskt.data.records import SPLITS, Annotation, Record
from cskt.errors import CSKTError, DataError

__all__ = ["CONTEXT", "verify"]

PROMPTS = CSKTConfig().prompts_per_tower  # that captions stand behind, in the paper's setting


def verify(
    name: str,
    root: str | Path,
    encode: Encode,
    deep: bool = False,
    progress: Progress | None = None,
    prompts: int = PROMPTS,
) -> Report:
    """Check the copy of data set ``name`` in ``root``, which is its folder or the parent that holds
    ``name/``.

    ``encode`` gives the tokens of a caption without start and end, as
    ``cskt.model.backbone.clip_tokenizer(context_length=77).encode`` does. ``deep`` also decodes
    every image, on all cores, and compares what the image cache holds of whole splits with their
    files. ``progress(iterable, description, total)`` wraps the long loops; tqdm fits. ``prompts``
    is how many a model puts before a caption, which cost as many of its tokens.

    Raises :class:`cskt.errors.CSKTError` where there is nothing to check: what cannot be a name, an
    annotation file that is missing or cannot be read as a whole.
    """
    path = find_annotation(name, root)
    if path is None:
        raise not_found(name, root)
    if progress is None:
        progress = _no_progress
    annotation = annotation_of(name, path)
    members: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in annotation.records.values():
        members[record.split].append(record)
    counts = {split: _count(records) for split, records in members.items()}

    findings = Findings()
    _check_version(name, path.parent, findings)
    _check_counts(name, path, counts, findings)
    _check_records(annotation, findings)
    _check_identities(members, findings)
    audit_captions(annotation, encode, prompts, progress, findings)
    _check_images(annotation, deep, progress, findings)
    if deep:
        _check_caches(name, path.parent, findings)
    return Report(
        name=name,
        annotation=path,
        deep=deep,
        counts=counts,
        faults=tuple(findings.faults),
        notes=tuple(findings.notes),
    )


def _no_progress(items: Iterable, description: str, total: int) -> Iterable:
    return items


def _count(records: list[Record]) -> Counts:
    identities = {record.identity for record in records}
    captions = sum(len(record.captions) for record in records)
    return Counts(len(records), len(identities), captions)


def _check_version(name: str, folder: Path, findings: Findings) -> None:
    if is_synthetic(name):
        try:
            read_recipe(folder)
        except DataError as error:
            findings.fault("version", "recipe.json", str(error).removesuffix("."))


def _check_counts(name: str, path: Path, counts: dict[str, Counts], findings: Findings) -> None:
    for split, found in counts.items():
        published = PUBLISHED.get(name, {}).get(split)
        if published is not None:
            two_each = 2 * found.images
            if path.name == BY_IDENTITY and found.captions == two_each:
                published = published._replace(captions=two_each)
            _compare_counts(split, found, published, findings)
        elif not any(found):
            layout = layout_of(name)
            if split == "val" and layout.own:
                message = "no records; a share of the training identities is split off"
                findings.note("counts", split, message)
            elif split == "val" and layout.val_optional:
                findings.note("counts", split, "no records; test stands in for it")
            else:
                findings.fault("counts", split, "no records; obtain the complete data set")


def _compare_counts(split: str, found: Counts, published: Counts, findings: Findings) -> None:
    wrong = []
    for field in Counts._fields:
        number = getattr(found, field)
        right = getattr(published, field)
        if number != right:
            wrong.append(f"{number:,} {field} instead of {right:,}")
    if wrong:
        findings.fault("counts", split, f"{', '.join(wrong)}; obtain the complete data set")


def _check_records(annotation: Annotation, findings: Findings) -> None:
    for index, message in annotation.malformed.items():
        findings.fault("record", f"{annotation.unit} {index}", message)
    missing = defaultdict(list)
    for record in annotation.records.values():
        if record.missing:
            missing[record.image.parent].append(record.image.name)
    for folder, names in missing.items():
        findings.fault(
            "missing",
            os.path.relpath(folder, annotation.path.parent),
            f"missing images: {len(names):,} ({some(names)}), looked for without imgs/ too; "
            "unpack the folder again",
        )


def _check_identities(members: dict[str, list[Record]], findings: Findings) -> None:
    for one, other in combinations(SPLITS, 2):
        of_one = {record.identity for record in members[one]}
        of_other = {record.identity for record in members[other]}
        both = sorted(of_one & of_other)
        if both:
            findings.fault(
                "identity",
                f"{one}, {other}",
                f"identities in both: {len(both):,} ({some(both)}); obtain the annotation again",
            )


def _check_images(
    annotation: Annotation, deep: bool, progress: Progress, findings: Findings
) -> None:
    listed = defaultdict(list)  # the records of each image
    for record in annotation.records.values():
        listed[record.image].append(record)
    folder = annotation.path.parent
    _check_listings(annotation, findings)
    digests = _check_files(listed, folder, deep, progress, findings)
    _check_duplicates(listed, folder, digests, findings)


def _check_listings(annotation: Annotation, findings: Findings) -> None:
    """Images that several records list."""
    indices = defaultdict(list)
    for index, record in annotation.records.items():
        indices[record.image].append(index)
    for image, listing in indices.items():
        if len(listing) == 1:
            continue
        owners = set()
        for index in listing:
            record = annotation.records[index]
            owners.add((record.split, record.identity))
        # Of one split and person it is a matter of layout, and one official annotation is said to
        # do so.
        report = findings.fault if len(owners) > 1 else findings.note
        name = os.path.relpath(image, annotation.path.parent)
        report("path", name, f"listed by records {some(listing)}; merge them into one")


def _check_files(
    listed: dict[Path, list[Record]],
    folder: Path,
    deep: bool,
    progress: Progress,
    findings: Findings,
) -> dict[Path, str]:
    """Image files that are damaged; the SHA-256 of the sound ones that were read: all of them if
    ``deep``, else those of a size that another has too."""
    sizes = {}
    for image, records in listed.items():
        if not records[0].missing:
            sizes[image] = image.stat().st_size
    of_size = Counter(sizes.values())
    to_read = []
    for image, size in sizes.items():
        if deep or size == 0 or of_size[size] > 1:
            to_read.append(image)
    digests = {}
    with on_all_cores(partial(_examine, deep=deep), to_read) as examined:
        results = progress(examined, "images", len(to_read))
        for image, (fault, digest) in zip(to_read, results, strict=True):
            if fault:
                name = os.path.relpath(image, folder)
                findings.fault("image", name, f"{fault}; restore it from the original archive")
            else:
                digests[image] = digest
    return digests


def _examine(image: Path, deep: bool) -> tuple[str, str]:
    """What is wrong with an image file ("" if nothing), and its SHA-256."""
    try:
        if not image.stat().st_size:
            return "has 0 bytes", ""
        if deep:
            read_image(image)  # decodes all of it, as training does
        with image.open("rb") as file:
            return "", hashlib.file_digest(file, "sha256").hexdigest()
    except (CSKTError, OSError) as error:
        return damage(error), ""


def _check_duplicates(
    listed: dict[Path, list[Record]], folder: Path, digests: dict[Path, str], findings: Findings
) -> None:
    """Images of the same content."""
    same = defaultdict(list)
    for image, digest in digests.items():
        same[digest].append(image)
    for images in same.values():
        if len(images) == 1:
            continue
        names = [os.path.relpath(image, folder) for image in images]
        people = set()
        splits = set()
        for image in images:
            for record in listed[image]:
                people.add(record.identity)
                splits.add(record.split)
        # One person's, it only counts twice; of two people, one of them is somebody else's picture.
        report = findings.fault if len(splits) > 1 or len(people) > 1 else findings.note
        report(
            "duplicate",
            ", ".join(split for split in SPLITS if split in splits),
            f"the same file: {some(names)} (identity {some(sorted(people))}); keep one of them",
        )


def _check_caches(name: str, folder: Path, findings: Findings) -> None:
    try:
        dataset = load_dataset(name, folder)
    except CSKTError:  # reported already; and what cannot be loaded has no cache in use
        return
    splits = [dataset.train, dataset.val]
    if dataset.test is not dataset.val:
        splits.append(dataset.test)
    for split in splits:
        try:
            for path, different in stale_caches(split):
                if different:
                    names = some(os.path.relpath(image, folder) for image in different)
                    findings.fault(
                        "cache",
                        split.name,
                        f"{path} holds other pixels than the files: {len(different):,} ({names}); "
                        "remove it",
                    )
        except CSKTError:  # an image that cannot be decoded, reported already
            continue
