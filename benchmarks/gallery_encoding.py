"""How many images a second ``index`` takes, beside encoding alone:
``python benchmarks/gallery_encoding.py --output gallery-encoding.json``.

Photographs are drawn and stored as JPEG. Decoding (with hashing, shrinking and the thumbnail) runs
while the batch before is encoded; both are also timed alone.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from typer import Option

from cskt.config import CSKTConfig
from cskt.environment import environment
from cskt.files import make_folder, write_json
from cskt.model import CSKT, load_model
from cskt.numerics import computes_bf16
from cskt.search.gallery import WORKERS, Gallery
from cskt.search.indexing import Added, Intake
from cskt.search.pictures import items_of
from cskt.search.query import encode_pixels, encoding

SEED = 0
PHOTOGRAPH = (256, 128)  # height and width of a crop


def photographs(folder: Path, count: int) -> Path:
    """A folder of so many crops, JPEG, smooth as photographs are."""
    folder.mkdir()
    random = np.random.default_rng(SEED)
    for index in range(count):
        coarse = random.integers(0, 256, (16, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(PHOTOGRAPH[::-1], Image.Resampling.BICUBIC)
        picture.save(folder / f"{index:05d}.jpg", quality=90)
    return folder


def measure(model: CSKT, precision: str, folder: Path, batch: int) -> dict[str, Any]:
    """Images a second: decoded alone, encoded alone, and both by a gallery."""
    items = items_of(folder, None, {})
    batches = [items[at : at + batch] for at in range(0, len(items), batch)]
    seconds = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        intake = Intake(lambda digests: set(), model.image_size, pool, Added())
        start = time.perf_counter()
        decoded = [intake(part) for part in batches]
        seconds["decoding"] = time.perf_counter() - start
    with encoding(model, precision):
        pixels = [np.stack([image.pixels for image in part]) for part in decoded]
        encode_pixels(model, precision, pixels[0])
        start = time.perf_counter()
        for part in pixels:
            encode_pixels(model, precision, part)
        seconds["encoding"] = time.perf_counter() - start
    with (
        tempfile.TemporaryDirectory() as place,
        Gallery(Path(place, "g.db"), model, precision=precision) as gallery,
    ):
        start = time.perf_counter()
        gallery.add(folder, batch_size=batch)
        seconds["index"] = time.perf_counter() - start
    row: dict[str, Any] = {"precision": precision, "images": len(items), "batch": batch}
    for what, spent in seconds.items():
        row[f"{what}_per_s"] = round(len(items) / spent, 2)
    row["share_of_encoding"] = round(100 * seconds["encoding"] / seconds["index"], 1)
    return row


def main(
    output: Annotated[Path | None, Option(help="File for the figures as json.")] = None,
    images: Annotated[int, Option(help="How many.")] = 256,
    batch: Annotated[int, Option(help="Images encoded at a time.")] = 64,
    backbone: Annotated[str, Option(help="With random weights.")] = "ViT-B-16",
    size: Annotated[str, Option(help="Height and width that the model sees.")] = "384x128",
) -> None:
    """Measure fp32, and bf16 where the processor has it."""
    if output:
        make_folder(output.parent)
    torch.manual_seed(SEED)
    height, width = map(int, size.split("x"))
    model = load_model(backbone, "random", (height, width), config=CSKTConfig()).eval()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    start = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = photographs(Path(place, "images"), images)
        for precision in ["fp32", "bf16"] if computes_bf16("cpu") else ["fp32"]:
            rows.append(measure(model, precision, folder, batch))
            typer.echo("  ".join(f"{name} {value}" for name, value in rows[-1].items()))
    if output:
        settings = {"backbone": backbone, "image_size": [height, width], "seed": SEED}
        record = {
            "kind": "benchmark",
            "name": "gallery-encoding",
            "started": started,
            "duration_s": round(time.monotonic() - start, 3),
            "settings": {**settings, "threads": torch.get_num_threads()},
            "rows": rows,
        }
        write_json(output, {**record, **environment("cpu")})


if __name__ == "__main__":
    typer.run(main)
