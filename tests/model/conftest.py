"""Small CLIPs, and the figures computed from the authors' release (tests/data/golden_tiny*.json say
how)."""

import ast
import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from cskt.config import CSKTConfig
from cskt.model import CSKT
from cskt.model.backbone import load_clip_state

DATA = Path(__file__).parents[1] / "data"


def build_clip(seed=0, image_size=(64, 32), vision_layers=2, text_layers=2, **extra):
    torch.manual_seed(seed)
    vision = dict(
        layers=vision_layers, width=32, head_width=16, patch_size=16, image_size=image_size
    )
    text = dict(layers=text_layers, width=16, heads=2, context_length=77, vocab_size=49408)
    vision.update(extra.pop("vision", {}))
    text.update(extra.pop("text", {}))
    return open_clip.CLIP(
        embed_dim=16, vision_cfg=vision, text_cfg=text, **{"quick_gelu": True, **extra}
    ).eval()


@pytest.fixture(scope="session")
def small_clip():
    """A factory of small random CLIPs."""
    return build_clip


class Golden:
    def __init__(self, name):
        vars(self).update(json.loads((DATA / f"{name}.json").read_text()))
        self.config = CSKTConfig(prompt_length=self.cfg["n_ctx"], prompt_depth=self.cfg["depth"])
        self.identities = torch.tensor(self.pids)
        self.token_ids = torch.tensor(self.ids_before)

    def tensor(self, name, shape):
        base, scale = next((b, s) for pattern, b, s in self.scale_rules if re.search(pattern, name))
        if isinstance(scale, str):  # "a/sqrt(fan_in)" or "a/sqrt(shape[0])"
            top, under = re.fullmatch(r"([\d.]+)/sqrt\((fan_in|shape\[0\])\)", scale).groups()
            scale = ast.literal_eval(top) / math.sqrt(
                math.prod(shape[1:]) if under == "fan_in" else shape[0]
            )
        x = (
            np.random.default_rng(zlib.crc32(name.encode()))
            .standard_normal(shape)
            .astype(np.float32)
        )
        return torch.from_numpy(np.float32(base) + x * np.float32(scale))

    def state(self, shapes, dtype=torch.float64):
        return {name: self.tensor(name, shape).to(dtype) for name, shape in shapes.items()}

    def images(self, dtype=torch.float64):
        shape = (4, 3, *self.cfg["img"])
        return torch.from_numpy(
            np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        ).to(dtype)

    def model(self, dtype=torch.float64):
        c = self.cfg
        backbone = build_clip(
            image_size=tuple(c["img"]),
            vision_layers=c["vl"],
            text_layers=c["tl"],
            vision=dict(width=c["vw"], head_width=64, patch_size=c["patch"]),
            text=dict(width=c["tw"], heads=c["tw"] // 64),
        )
        backbone.text_projection = torch.nn.Parameter(torch.empty(c["tw"], c["embed"]))
        backbone.visual.proj = torch.nn.Parameter(torch.empty(c["vw"], c["embed"]))
        backbone = backbone.to(dtype)
        load_clip_state(
            backbone, self.state(self.clip_state_dict_shapes, dtype), (c["grid"],) * 2, "golden"
        )
        model = CSKT(backbone, self.config)
        model.load_reference_checkpoint(self.state(self.trainable_shapes, dtype))
        return model


@pytest.fixture(scope="session", params=["golden_tiny", "golden_tiny_d2"])
def golden(request):
    return Golden(request.param)


@pytest.fixture(scope="session")
def insertion_table():
    return json.loads((DATA / "golden_prompt_insertion.json").read_text())["rows"]
