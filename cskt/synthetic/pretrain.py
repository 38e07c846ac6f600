"""How the embedded backbone cskt-mini is made: plain CLIP training in fp32 on the generic corpus,
in one run.

In three steps of four a few random prompt rows stand in both towers, drawn anew each time, so that
the backbone learns to tolerate rows that mean nothing yet; so few tokens (33 image rows) would
otherwise drown in untrained prompts.
"""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor
from tqdm import tqdm

from cskt.config import MINI, CSKTConfig, cache_dir
from cskt.data.augment import normalize
from cskt.errors import ConfigurationError
from cskt.files import write_atomically, write_json
from cskt.losses import itc_loss
from cskt.model.backbone import RANDOM, create_backbone, save_mini, tokenizer_for
from cskt.model.cskt import CSKT
from cskt.synthetic import VERSION
from cskt.synthetic.corpus import build_corpus, corpus_caption

SAMPLES, IMAGES = 320_000, 80_000  # pairs seen, images drawn: about half an hour of two cores
BATCH_SIZE = 128
# The logit scale rises from CLIP's start to SDM's 1 / 0.02, so that the backbone fits it.
FIRST_SCALE = 1 / 0.07
LAST_SCALE = 50.0
LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.05
RECORD_EVERY = 100  # steps


def pretrain_mini(
    samples: int = SAMPLES,
    output: str | Path = "runs/pretrain-mini",
    images: int = IMAGES,
    seed: int = 0,
    environment: dict[str, Any] | None = None,
) -> Path:
    """Pre-train cskt-mini on the CPU.

    Args:
        samples: image-caption pairs seen in all; each epoch over ``images`` draws new captions.
        output: folder for ``cskt-mini.safetensors`` and its run file.
        environment: facts about machine and commit to put in the run file.
    """
    if samples < BATCH_SIZE or images < BATCH_SIZE:
        raise ConfigurationError(
            f"samples and images must be at least one batch of {BATCH_SIZE}, "
            f"got {samples} and {images}."
        )
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    pretraining = Pretraining(images, samples // BATCH_SIZE, seed)
    pretraining.run()
    pretraining.write_weights(folder / f"{MINI}.safetensors")
    record = {
        "kind": "pretraining",
        "model": MINI,
        "data": "generic synthetic corpus",
        "data_version": VERSION,
        "precision": "fp32",
        "batch_size": BATCH_SIZE,
        "samples": samples,
        "images": images,
        "seed": seed,
        "steps": pretraining.steps,
        "duration_s": round(pretraining.history[-1]["seconds"], 1),
        "history": pretraining.history,
        "known_tokens": int(pretraining.seen.sum()),
        **(environment or {}),
    }
    write_json(folder / f"{MINI}.run.json", record)
    return folder


class Pretraining:
    """The backbone on its way through the corpus: the tokens ``seen`` so far (vocabulary,) bool,
    and in ``history`` a line for every hundred steps."""

    def __init__(self, images: int, steps: int, seed: int) -> None:
        folder = cache_dir() / f"pretraining-corpus-{VERSION}"
        self.pixels, self.facts = build_corpus(folder, images)
        self.steps = steps
        self.seed = seed
        torch.manual_seed(seed)
        self.backbone = create_backbone(MINI, pretrained=RANDOM)
        self.backbone.train().requires_grad_(True)
        self.optimizer = _optimizer(self.backbone)
        self.tokenize = tokenizer_for(MINI)
        vocabulary = len(self.backbone.token_embedding.weight)
        self.seen = torch.zeros(vocabulary, dtype=torch.bool)
        self.history: list[dict[str, float]] = []

    def run(self) -> None:
        """All the steps."""
        started = time.monotonic()
        bar = tqdm(range(self.steps), "pre-training")
        for step in bar:
            scale = _logit_scale(step, self.steps)
            loss = self._step(step, scale)
            bar.set_postfix(loss=f"{loss:.3f}", scale=f"{scale:.1f}")
            if (step + 1) % RECORD_EVERY == 0 or step + 1 == self.steps:
                seconds = time.monotonic() - started
                line = {"step": step + 1, "loss": loss, "scale": scale, "seconds": seconds}
                self.history.append(line)
        self.backbone.logit_scale.data.fill_(math.log(_logit_scale(self.steps, self.steps)))
        self.backbone.eval()

    def _step(self, step: int, scale: float) -> float:
        """One optimiser step, whose random numbers all follow from seed and step; its loss."""
        rng = np.random.default_rng((self.seed, step))
        torch.manual_seed(self.seed * 1_000_003 + step)
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(step, self.steps)
        rows = self._rows(step)
        images = _shifted(self.pixels[rows], rng)
        tokens = self.tokenize([corpus_caption(self.facts[row], rng) for row in rows])
        self.seen[tokens.unique()] = True
        model = _with_random_prompts(self.backbone, rng)
        image_features = model.encode_image(normalize(images))
        text_features = model.encode_text(tokens)
        loss = itc_loss(image_features, text_features, temperature=1 / scale)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def _rows(self, step: int) -> np.ndarray:
        """The items of a step's batch: every epoch goes through all of them in an order of its
        own."""
        items = len(self.facts)
        epoch, start = divmod(step * BATCH_SIZE, items)
        order = np.random.default_rng((self.seed, 1_000_000 + epoch)).permutation(items)
        return order[start : start + BATCH_SIZE]

    def write_weights(self, path: Path) -> None:
        """The weights; of the token rows only those that were seen."""
        known = self.seen.nonzero()[:, 0].tolist()
        write_atomically(path, functools.partial(save_mini, self.backbone, known))


def _shifted(pixels: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W), all moved by the same few pixels."""
    down, right = rng.integers(-3, 4, 2)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return torch.roll(images, (int(down), int(right)), (2, 3))


def _with_random_prompts(backbone: open_clip.CLIP, rng: np.random.Generator) -> CSKT:
    """The backbone as it stands, or with 1 to 4 fresh random prompts per tower in three steps of
    four."""
    config = CSKTConfig(
        prompt_length=int(rng.integers(1, 3)),
        vision_adapter=False,
        text_adapter=False,
        text_to_vision=bool(rng.random() < 0.5),
        vision_to_text=bool(rng.random() < 0.5),
        train_backbone=True,
    )
    return CSKT(backbone, config)


def _learning_rate(step: int, steps: int) -> float:
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    cosine = 1 + math.cos(math.pi * step / steps)
    return LEARNING_RATE * warmup * 0.5 * cosine


def _logit_scale(step: int, steps: int) -> float:
    """Geometric over the first 80% of the steps, then constant."""
    share = min(1.0, step / (0.8 * steps))
    return FIRST_SCALE * (LAST_SCALE / FIRST_SCALE) ** share


def _optimizer(backbone: open_clip.CLIP) -> torch.optim.Optimizer:
    """AdamW; no decay on vectors, nor on token rows, so that rows never seen stay as they were
    drawn."""
    decayed = []
    undecayed = []
    for name, parameter in backbone.named_parameters():
        if parameter.ndim < 2 or name == "token_embedding.weight":
            undecayed.append(parameter)
        else:
            decayed.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)
