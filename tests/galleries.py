"""Images, facts and a small model for the tests of galleries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cskt
from cskt import CSKT, CSKTConfig
from cskt.data.augment import normalize
from tests.tiny_runs import BACKBONE, IMAGE_SIZE, register_backbone


def small_model(folder: Path) -> CSKT:
    """A model over the tiny backbone, always the same one; ``folder`` is for its configuration."""
    register_backbone(folder)
    torch.manual_seed(0)
    return cskt.load_model(BACKBONE, config=CSKTConfig(prompt_length=1)).eval()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Noise, (count, H, W, 3) uint8."""
    shape = (count, *IMAGE_SIZE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def facts_of(count: int) -> list[dict[str, Any]]:
    """Of each image an identity (two images of each), one of three cameras, a day and a floor."""
    facts = []
    for i in range(count):
        day = f"2024-01-{i + 1:02d}"
        facts.append({"identity": i // 2, "camera": f"c{i % 3}", "time": day, "floor": i % 2})
    return facts


def folder_of(path: Path, count: int, size: tuple[int, int] = IMAGE_SIZE) -> Path:
    """``path`` with so many files of noise, 0000.png and on."""
    path.mkdir(parents=True)
    noise = np.random.default_rng(1).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(path / f"{index:04d}.png")
    return path


def cut(picture: Path, copy: Path) -> None:
    """A damaged copy of a picture: the first 900 bytes."""
    copy.write_bytes(picture.read_bytes()[:900])


def features(model: CSKT, images: np.ndarray) -> torch.Tensor:
    """The model's own, (N, D), L2-normalised."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model.encode_image(normalize(pixels), normalize=True)


def names(hits) -> list[str]:
    """Where hits come from, best first."""
    return [hit.source for hit in hits]


def reasons(added) -> dict[str, str]:
    """Name of a skipped file -> why."""
    return {Path(file).name: why for file, why in added.skipped.items()}
