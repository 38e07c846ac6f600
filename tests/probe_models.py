"""A small model whose prompts and adapters do something, with what it looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import Tensor

from cskt import CSKT, CSKTConfig
from cskt.data.datasets import Split
from cskt.evaluation import LoadedSplit

CAPTIONS = ["a man in red", "a woman", "somebody with a long description of many words"]
SIZE = (64, 32)
ROWS, COLUMNS = 4, 2  # of patches


def small_model(**settings) -> CSKT:
    """Three layers of two heads in each tower; of everything trained, random weights."""
    torch.manual_seed(0)
    vision = dict(layers=3, width=32, head_width=16, patch_size=16, image_size=SIZE)
    text = dict(layers=3, width=16, heads=2, context_length=77, vocab_size=49408)
    clip = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    config = CSKTConfig(**{"reduction": 4, "prompt_length": 2, **settings})
    model = CSKT(clip, config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_pictures(count: int, seed: int) -> Tensor:
    """(count, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, *SIZE), dtype=torch.uint8, generator=generator)


def loaded_split(model: CSKT, people: int = 3) -> LoadedSplit:
    """Two pictures of each person, with a caption each."""
    count = 2 * people
    identities = np.arange(count) // 2
    paths = tuple(Path(f"{identity}.png") for identity in identities)
    captions = tuple(f"a person number {number}" for number in range(count))
    split = Split("test", paths, identities, captions, np.arange(count))
    pictures = random_pictures(count, seed=2)
    return LoadedSplit(split, pictures, model.tokenize(list(captions)))
