"""What a data set looks like: the tables and samples of the data notebook."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pandas as pd

from .benchmarks import PersonRetrievalDataset, Split
from .images import read_image


def dataset_statistics(data: PersonRetrievalDataset) -> pd.DataFrame:
    """Images, identities and captions per split; a split that another one stands in for is counted
    as given."""
    rows = []
    for split in (data.train, data.val, data.test):
        words = [len(caption.split()) for caption in split.captions]
        rows.append(
            {
                "data set": data.name + (" (synthetic)" if data.synthetic else ""),
                "split": split.name,
                "identities": len(np.unique(split.image_identities)),
                "images": len(split.image_paths),
                "captions": len(split),
                "words per caption": f"{np.mean(words):.1f}",
                "cameras": len(set(split.cameras)) if split.cameras else "—",
                "version": "—" if data.version is None else data.version,
                "fingerprint": data.fingerprint[:12],
            }
        )
    return pd.DataFrame(rows)


def sample_people(
    split: Split, people: int, seed: int, images: int = 4
) -> tuple[list[list[np.ndarray]], list[list[str]], list[str]]:
    """Some identities with up to ``images`` pictures each: pictures (H, W, 3) uint8, their titles,
    row labels."""
    identities = np.unique(split.image_identities)
    chosen = np.random.default_rng(seed).choice(
        identities, min(people, len(identities)), replace=False
    )
    rows, titles = [], []
    for identity in chosen:
        members = np.flatnonzero(split.image_identities == identity)[:images]
        pictures = [read_image(split.image_paths[member]) for member in members]
        rows.append([np.asarray(picture.convert("RGB")) for picture in pictures])
        titles.append([split.cameras[member] if split.cameras else "" for member in members])
    return rows, titles, [f"person {identity}" for identity in chosen]


def sample_captions(data: PersonRetrievalDataset, count: int, seed: int) -> pd.DataFrame:
    """Some captions of the test split."""
    split = data.test
    chosen = np.random.default_rng(seed).choice(len(split), min(count, len(split)), replace=False)
    return pd.DataFrame(
        {"data set": data.name, "caption": [split.captions[index] for index in chosen]}
    )


def visible_shares(data: PersonRetrievalDataset) -> pd.DataFrame:
    """Of the test images of people who have it, the share (percent) that shows each attribute group
    well enough to be named; from the attribute table of a SynthPEDES domain."""
    table = [
        row
        for row in json.loads((data.root / "attributes.json").read_text())
        if row["split"] == "test"
    ]
    owned, shown = Counter(), Counter()
    has = {
        "headwear": "headwear",
        "eyewear": "eyewear",
        "bag": "bag",
        "scarf": "scarf_colour",
        "umbrella": "umbrella_colour",
        "lower": "lower",
    }
    for row in table:
        for group in (
            "hair",
            "upper",
            "lower",
            "shoes",
            "bag",
            "headwear",
            "eyewear",
            "scarf",
            "umbrella",
        ):
            owned[group] += group not in has or row["attributes"][has[group]] != "none"
            shown[group] += group in row["shown"]
    return pd.DataFrame(
        {data.name: {group: 100 * shown[group] / owned[group] for group in owned if owned[group]}}
    )
