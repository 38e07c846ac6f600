"""Checking hand-made copies of the benchmarks: what the tests of the verifier share."""

import pytest

from cskt.data import verify as verification
from cskt.data.findings import PUBLISHED
from cskt.model.backbone import clip_tokenizer
from tests.annotations import FILE, records, write

NAME = "CUHK-PEDES"
COUNTS = {"train": (3, 2, 4), "val": (1, 1, 2), "test": (2, 2, 3)}  # of annotations.records()


def verify(name, root, **options):
    """The report, with the tokenizer of CLIP."""
    encode = clip_tokenizer(context_length=77).encode
    return verification.verify(name, root, encode, **options)


def places(findings):
    """Kind and place of each finding."""
    return [(finding.kind, finding.where) for finding in findings]


@pytest.fixture
def published(monkeypatch):
    """As if the small copies were the complete data sets."""
    for name in FILE:
        counts = {}
        for split, numbers in PUBLISHED[name].items():
            images, identities, captions = COUNTS[split]
            counts[split] = numbers._replace(
                images=images, identities=identities, captions=captions
            )
        monkeypatch.setitem(PUBLISHED, name, counts)


@pytest.fixture
def copy(tmp_path, published):
    """``copy(index, field=value, ...)``: CUHK-PEDES with one record changed; returns its folder."""

    def make(index=0, **changes):
        entries = records()
        entries[index].update(changes)
        return write(tmp_path, entries)

    return make
