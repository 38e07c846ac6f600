"""What a data set looks like: the tables and samples of the data notebook."""

from __future__ import annotations

import json
from collections import Counter
from html import escape

import numpy as np
import pandas as pd

from cskt.data.datasets import PersonRetrievalDataset, Split
from cskt.data.images import read_image
from cskt.html import image_uri

# The attribute that says whether a person has what the group is about; of the others all have it.
OWNED_IF = {
    "hair": None,
    "upper": None,
    "lower": "lower",  # none with a dress or a coat
    "shoes": None,
    "bag": "bag",
    "headwear": "headwear",
    "eyewear": "eyewear",
    "scarf": "scarf_colour",
    "umbrella": "umbrella_colour",
}


def dataset_statistics(data: PersonRetrievalDataset) -> pd.DataFrame:
    """Images, identities and captions per split; a split that another one stands in for is counted
    as given."""
    name = f"{data.name} (synthetic)" if data.synthetic else data.name
    version = "—" if data.version is None else data.version
    rows = []
    for split in (data.train, data.val, data.test):
        words = [len(caption.split()) for caption in split.captions]
        rows.append(
            {
                "data set": name,
                "split": split.name,
                "identities": len(np.unique(split.image_identities)),
                "images": len(split.image_paths),
                "captions": len(split),
                "words per caption": f"{np.mean(words):.1f}",
                "cameras": len(set(split.cameras)) if split.cameras else "—",
                "version": version,
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
    rng = np.random.default_rng(seed)
    chosen = rng.choice(identities, min(people, len(identities)), replace=False)
    pictures = []
    titles = []
    for identity in chosen:
        members = np.flatnonzero(split.image_identities == identity)[:images]
        pictures.append([_pixels(split, member) for member in members])
        titles.append([split.cameras[member] if split.cameras else "" for member in members])
    labels = [f"person {identity}" for identity in chosen]
    return pictures, titles, labels


def image_with_captions(split: Split, image: int, name: str) -> str:
    """Html of one image of a split beside the captions that were written for it."""
    address = image_uri(_pixels(split, image))
    written = []
    for caption, described in zip(split.captions, split.caption_images, strict=True):
        if described == image:
            written.append(f"<p>{escape(caption)}</p>")
    picture = f'<img src="{address}" width="96" alt="{escape(name)}: a person; captions beside it">'
    style = "display: flex; gap: 1.2rem; align-items: center; margin: 0.8rem 0"
    return f'<div style="{style}">{picture}<div><b>{escape(name)}</b>{"".join(written)}</div></div>'


def _pixels(split: Split, image: int) -> np.ndarray:
    return np.asarray(read_image(split.image_paths[image]).convert("RGB"))


def visible_shares(data: PersonRetrievalDataset) -> pd.DataFrame:
    """Of the test images of people who have it, the share (percent) that shows each attribute group
    well enough to be named; from the attribute table of a SynthPEDES domain."""
    table = json.loads((data.root / "attributes.json").read_text())
    owned: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for row in table:
        if row["split"] != "test":
            continue
        for group, attribute in OWNED_IF.items():
            if attribute is None or row["attributes"][attribute] != "none":
                owned[group] += 1
            if group in row["shown"]:
                shown[group] += 1
    shares = {group: 100 * shown[group] / owned[group] for group in OWNED_IF if owned[group]}
    return pd.DataFrame({data.name: shares})
