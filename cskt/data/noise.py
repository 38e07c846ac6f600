"""Noisy correspondence: training captions that stand at images of other people.

The texts move and the images stay: after the move, the caption at position i is what position
``sources[i]`` held before, while the image and the identity of position i are as annotated, as in
RDE (Qin et al., CVPR 2024).
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cskt.config import TrainConfig
from cskt.data.datasets import Split, subset
from cskt.errors import DataError

_STREAM = 1  # keeps these random numbers apart from those that training draws with the same seed


def draw_sources(split: Split, share: float, seed: int) -> np.ndarray:
    """Where each caption comes from, (M,) int64, after a ``share`` of the captions was permuted.

    ``round(share * M)`` positions are chosen by ``seed``; those of a smaller share are among those
    of a larger one. The others keep their caption. Of the chosen captions as few as possible end at
    an image of their own identity: none, unless one identity has more than half of them.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM,)))
    identities = split.caption_identities
    chosen = rng.permutation(len(split))[: round(share * len(split))]
    permuted = rng.permutation(chosen)
    _part_identities(identities, chosen, permuted, rng)
    sources = np.arange(len(split))
    sources[chosen] = permuted
    return sources


def _part_identities(
    identities: np.ndarray, chosen: np.ndarray, permuted: np.ndarray, rng: np.random.Generator
) -> None:
    """Swap entries of ``permuted``, in place, until no swap lessens the captions that are at their
    own identity."""
    own = identities[chosen]
    for place in np.flatnonzero(identities[permuted] == own):
        identity = own[place]
        moved = identities[permuted]
        if moved[place] != identity:
            continue  # an earlier swap moved this caption away
        # A swap with a place that neither is nor holds this identity leaves both captions wrong.
        partners = np.flatnonzero((own != identity) & (moved != identity))
        if len(partners):
            partner = rng.choice(partners)
            permuted[[place, partner]] = permuted[[partner, place]]


def read_noise_index(path: str | Path, split: Split) -> np.ndarray:
    """Where each caption comes from, (M,) int64, from a ``.npy`` file such as those that RDE
    published (its folder ``noiseindex``), whose captions are numbered in the order of the
    annotation file.

    Raises :class:`cskt.errors.DataError` on a file that cannot be read, is no row of integers, is
    not as long as the split, or does not name every caption once.
    """
    try:
        sources = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"noise index {path} cannot be read ({error}); give a .npy file of caption indices."
        ) from error
    if not isinstance(sources, np.ndarray) or sources.ndim != 1 or sources.dtype.kind not in "iu":
        raise DataError(
            f"noise index {path} is not one row of integers; give a .npy file of caption indices."
        )
    count = len(split)
    if len(sources) != count:
        raise DataError(
            f"noise index {path} has {len(sources):,} entries but training has {count:,} captions; "
            "give the file made for this data set, and leave train_fraction at 1."
        )
    outside = np.flatnonzero((sources < 0) | (sources >= count))
    if len(outside):
        entry = outside[0]
        raise DataError(
            f"noise index {path}, entry {entry}: {sources[entry]} is not a caption from 0 to "
            f"{count - 1}; give the file made for this data set."
        )
    sources = sources.astype(np.int64)
    times_named = np.bincount(sources, minlength=count)
    missing = np.flatnonzero(times_named == 0)
    if len(missing):
        raise DataError(
            f"noise index {path} never names caption {missing[0]} and names another one twice; "
            "give a file that names every caption once."
        )
    return sources


def move_captions(split: Split, sources: np.ndarray) -> Split:
    """``split`` with, at each position i, the caption of position ``sources[i]``."""
    captions = tuple(split.captions[source] for source in sources)
    return dataclasses.replace(split, captions=captions)


def wrong_captions(split: Split, sources: np.ndarray) -> np.ndarray:
    """(M,) bool: which positions hold a caption of another identity than their image's;
    ``split`` is the one before the move."""
    return split.caption_identities[sources] != split.caption_identities


def index_fingerprint(path: str | None) -> str | None:
    """The sha256 of a noise index's file, hex; None of none."""
    if path is None:
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def training_captions(train: Split, config: TrainConfig) -> tuple[Split, dict[str, Any] | None]:
    """The people and captions that a run trains on, of the complete ``train``, and what its record
    says of their noise (None: no caption was moved).

    That is how many ``captions`` there are, how many were ``moved`` to another image, and how many
    of those to another identity's (``wrong``), also as a ``wrong_share`` of all. Raises
    :class:`cskt.errors.DataError` on a noise index that does not fit.
    """
    if config.train_fraction < 1:
        train = subset(train, config.train_fraction, config.seed)
    if config.noise_index:
        sources = read_noise_index(config.noise_index, train)
    elif config.noise:
        sources = draw_sources(train, config.noise, config.seed)
    else:
        return train, None
    moved = np.flatnonzero(sources != np.arange(len(train)))
    wrong = np.flatnonzero(wrong_captions(train, sources))
    facts = {
        "captions": len(train),
        "moved": len(moved),
        "wrong": len(wrong),
        "wrong_share": len(wrong) / len(train),
    }
    return move_captions(train, sources), facts
