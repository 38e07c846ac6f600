"""Small hand-made copies of the benchmarks, in every layout: six images and nine captions."""

import json

from PIL import Image

from cskt.synthetic import VERSION

FILE = {
    "CUHK-PEDES": "reid_raw.json",
    "ICFG-PEDES": "ICFG-PEDES.json",
    "RSTPReid": "data_captions.json",
}
PATH_FIELD = {"CUHK-PEDES": "file_path", "ICFG-PEDES": "file_path", "RSTPReid": "img_path"}
SPLITS = ("train", "train", "train", "val", "test", "test")  # of the six images
IDENTITIES = (40, 7, 40, 11500, 12500, 12501)


def image_name(index):
    """Where image ``index`` lies, in the folder of images."""
    return f"cam{index % 2}/{index}.png"


def records(name="CUHK-PEDES", **changes):
    """Six images, identities with gaps, one to two captions each; ``changes`` are written into
    every record."""
    entries = []
    for index in range(len(SPLITS)):
        captions = [f"caption {index} {number}" for number in range(1 + index % 2)]
        entry = {
            "split": SPLITS[index],
            PATH_FIELD[name]: image_name(index),
            "id": IDENTITIES[index],
            "processed_tokens": [["a"]],
            "captions": captions,
        }
        entries.append({**entry, **changes})
    return entries


def without(entries, field):
    """The records without one of their fields."""
    kept = []
    for entry in entries:
        kept.append({name: value for name, value in entry.items() if name != field})
    return kept


def write(folder, entries, file="reid_raw.json", images="imgs"):
    """A copy with ``entries`` as its annotation ``file``; its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(entries))
    (folder / "recipe.json").write_text(json.dumps({"version": VERSION}))  # read of SynthPEDES only
    for index in range(len(SPLITS)):
        path = folder / images / image_name(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + index, 8), (40 * index, 0, 0)).save(path)
    return folder
