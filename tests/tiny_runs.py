"""A tiny backbone and a tiny data set in the CUHK-PEDES layout, for the tests of training,
evaluation and the CLI."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

from cskt.config import CSKTConfig, TrainConfig
from cskt.model.cskt import CSKT

BACKBONE = "cskt-test-tiny"
IMAGE_SIZE = (32, 16)
COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 180, 60),
    "blue": (40, 60, 200),
    "yellow": (220, 210, 60),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
}


def register_backbone(folder: Path) -> None:
    """Make :data:`BACKBONE` known to open_clip: two blocks of width 32 per tower."""
    text = dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=2)
    vision = dict(image_size=list(IMAGE_SIZE), layers=2, width=32, head_width=16, patch_size=8)
    path = folder / f"{BACKBONE}.json"
    path.write_text(
        json.dumps(dict(embed_dim=16, quick_gelu=True, vision_cfg=vision, text_cfg=text))
    )
    open_clip.add_model_config(path)


def tiny_model(
    config: CSKTConfig, patch_size: int = 16, vision_layers: int = 2, head_width: int = 16
) -> CSKT:
    """A model over a backbone with random weights, always the same ones."""
    torch.manual_seed(0)
    vision = {
        "image_size": (32, 16),
        "layers": vision_layers,
        "width": 32,
        "head_width": head_width,
        "patch_size": patch_size,
    }
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    backbone = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    return CSKT(backbone.eval(), config).eval()


def write_dataset(
    folder: Path,
    identities: int = 6,
    images: int = 2,
    size: tuple[int, int] = IMAGE_SIZE,
    seed: int = 0,
) -> Path:
    """``identities`` per split, each a noisy colour in ``images`` images with one caption each;
    returns ``folder``."""
    generator = np.random.default_rng(seed)
    records = []
    for start, split in ((0, "train"), (100, "val"), (200, "test")):
        for identity in range(identities):
            name, colour = list(COLOURS.items())[identity % len(COLOURS)]
            for image in range(images):
                pixels = np.clip(
                    np.array(colour) + generator.normal(0, 20, (*size, 3)), 0, 255
                ).astype(np.uint8)
                path = f"CUHK01/{split}_{identity}_{image}.png"
                (folder / "imgs" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / "imgs" / path)
                records.append(
                    dict(
                        split=split,
                        id=start + identity + 1,
                        file_path=path,
                        captions=[
                            f"a person in {name} clothes, number {identity} {'again' * image}"
                        ],
                    )
                )
    (folder / "reid_raw.json").write_text(json.dumps(records))
    return folder


def tiny_config(data_root: Path, output: Path | None = None, **overrides) -> TrainConfig:
    """A run of seconds on the tiny data and backbone; learning is fast so that epochs differ."""
    method = dict(prompt_length=1, vision_scale=1.0, text_scale=1.0)
    values = dict(
        dataset="CUHK-PEDES",
        data_root=str(data_root),
        backbone=BACKBONE,
        pretrained=None,
        image_size=IMAGE_SIZE,
        cskt=CSKTConfig(**method),
        epochs=3,
        batch_size=5,
        learning_rate=1e-2,
        adam_eps=1e-8,
        warmup_epochs=1,
        pad=2,
        precision="fp32",
        device="cpu",
        output=None if output is None else str(output),
    )
    return TrainConfig(**{**values, **overrides})


def assert_same_tensors(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Equal names and bitwise equal values."""
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=0, msg=name)


class Interrupted(Exception):
    """Stands for the power cut."""


def interrupt_after(epoch: int):
    """A function for ``on_epoch`` of :func:`cskt.training.train`."""

    def on_epoch(row):
        if row["epoch"] == epoch:
            raise Interrupted

    return on_epoch


def without_seconds(history: list[dict]) -> list[dict]:
    """The history of a run as far as another run must repeat it."""
    rows = []
    for row in history:
        rows.append({name: value for name, value in row.items() if name != "seconds"})
    return rows
