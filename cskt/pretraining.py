"""How the embedded backbone cskt-mini is made: plain CLIP training in fp32 on the generic corpus,
in one run.

In three steps of four a few random prompt rows stand in both towers, drawn anew each time, so that
the backbone learns to tolerate rows that mean nothing yet; so few tokens (33 image rows) would
otherwise drown in untrained prompts.
"""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cskt.errors import CSKTError

from .backbones import RANDOM, create_backbone, save_mini, tokenizer_for
from .config import MINI, CSKTConfig, cache_dir
from .data.augment import normalize
from .data.synthetic import VERSION
from .data.synthetic.corpus import build_corpus, corpus_caption
from .losses import itc_loss
from .model.cskt import CSKT

log = logging.getLogger(__name__)

SAMPLES, IMAGES = 320_000, 80_000  # pairs seen, images drawn: about half an hour of two cores
BATCH_SIZE = 128
SCALES = (
    1 / 0.07,
    50.0,
)  # the logit scale rises from CLIP's start to SDM's 1 / 0.02, so that the backbone fits it
LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 200
CHECKPOINT_EVERY = 100


def _learning_rate(step: int, steps: int) -> float:
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return LEARNING_RATE * warmup * 0.5 * (1 + math.cos(math.pi * step / steps))


def _logit_scale(step: int, steps: int) -> float:
    """Geometric over the first 80% of the steps, then constant."""
    return SCALES[0] * (SCALES[1] / SCALES[0]) ** min(1.0, step / (0.8 * steps))


def _batch(
    images: np.ndarray, facts: list[dict], rows: np.ndarray, rng: np.random.Generator, tokenize
) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).contiguous()
    shift = rng.integers(-3, 4, 2)
    pixels = torch.roll(pixels, (int(shift[0]), int(shift[1])), (2, 3))
    return normalize(pixels), tokenize([corpus_caption(facts[row], rng) for row in rows])


def _wrapped(backbone, rng: np.random.Generator) -> CSKT:
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


def _export(backbone, seen: Tensor, folder: Path, record: dict) -> None:
    part = folder / f"{MINI}.safetensors.part"
    save_mini(backbone, seen.nonzero()[:, 0].tolist(), part)
    part.replace(folder / f"{MINI}.safetensors")
    (folder / f"{MINI}.run.json").write_text(json.dumps(record, indent=2) + "\n")


def _optimizer(backbone) -> torch.optim.Optimizer:
    """AdamW; no decay on vectors, nor on token rows, so that rows never seen stay as they were
    drawn."""
    table = backbone.token_embedding.weight
    decayed = [p for p in backbone.parameters() if p.ndim >= 2 and p is not table]
    others = [p for p in backbone.parameters() if p.ndim < 2 or p is table]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)


def _step(
    backbone,
    optimizer,
    pixels: np.ndarray,
    facts: list[dict],
    step: int,
    seed: int,
    scale: float,
    tokenize,
) -> tuple[float, Tensor]:
    """One optimiser step; all its random numbers follow from (seed, step). Returns the loss and the
    tokens seen."""
    rng = np.random.default_rng((seed, step))
    torch.manual_seed(seed * 1_000_003 + step)
    epoch, start = divmod(step * BATCH_SIZE, len(facts))
    rows = np.random.default_rng((seed, 1_000_000 + epoch)).permutation(len(facts))[
        start : start + BATCH_SIZE
    ]
    batch, tokens = _batch(pixels, facts, rows, rng, tokenize)
    model = _wrapped(backbone, rng)
    loss = itc_loss(model.encode_image(batch), model.encode_text(tokens), temperature=1 / scale)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
    optimizer.step()
    return loss.item(), tokens


def pretrain_mini(
    samples: int = SAMPLES,
    output: str | Path = "runs/pretrain-mini",
    images: int = IMAGES,
    seed: int = 0,
    stop_after: float | None = None,
    environment: dict | None = None,
) -> Path:
    """Pre-train cskt-mini on the CPU; calling it again with the same arguments resumes.

    Args: samples: image-caption pairs seen in all; each epoch over ``images`` draws new captions.
        output: folder for ``state.pt`` (to resume) and, when done, ``cskt-mini.safetensors`` and
        its run file. stop_after: seconds after which to stop at the next checkpoint, to go on in a
        later call. environment: facts about machine and commit to put in the run file.
    """
    if samples < BATCH_SIZE or images < BATCH_SIZE:
        raise CSKTError(
            f"samples and images must be at least one batch of {BATCH_SIZE}, got {samples} and {images}."
        )
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    pixels, facts = build_corpus(cache_dir() / f"pretraining-corpus-{VERSION}", images)
    torch.manual_seed(seed)
    backbone, tokenize = create_backbone(MINI, pretrained=RANDOM), tokenizer_for(MINI)
    optimizer, steps = _optimizer(backbone.train().requires_grad_(True)), samples // BATCH_SIZE
    settings = {"samples": samples, "images": images, "seed": seed}
    state = {
        "step": 0,
        "spent": 0.0,
        "seen": torch.zeros(len(backbone.token_embedding.weight), dtype=torch.bool),
        "history": [],
        "settings": settings,
    }
    path = folder / "state.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["settings"] != settings:
            raise CSKTError(
                f"{path} belongs to another run ({state['settings']}); use another output."
            )
        backbone.load_state_dict(state.pop("backbone"))
        optimizer.load_state_dict(state.pop("optimizer"))
    started, spent = time.monotonic(), state["spent"]
    for step in (
        bar := tqdm(range(state["step"], steps), "pre-training", initial=state["step"], total=steps)
    ):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, steps)
        scale = _logit_scale(step, steps)
        loss, tokens = _step(backbone, optimizer, pixels, facts, step, seed, scale, tokenize)
        state["seen"][tokens.unique()] = True
        bar.set_postfix(loss=f"{loss:.3f}", scale=f"{scale:.1f}")
        if (step + 1) % CHECKPOINT_EVERY and step + 1 < steps:
            continue
        state.update(step=step + 1, spent=spent + time.monotonic() - started)
        state["history"].append(
            {"step": step + 1, "loss": loss, "scale": scale, "seconds": state["spent"]}
        )
        torch.save(
            {**state, "backbone": backbone.state_dict(), "optimizer": optimizer.state_dict()},
            part := path.with_suffix(".part"),
        )
        part.replace(path)
        if stop_after and time.monotonic() - started > stop_after and step + 1 < steps:
            log.info("stopped at step %d of %d; call again to go on", step + 1, steps)
            return folder
    record = {
        "kind": "pretraining",
        "model": MINI,
        "data": "generic synthetic corpus",
        "data_version": VERSION,
        "precision": "fp32",
        "batch_size": BATCH_SIZE,
        **settings,
        "steps": steps,
        "duration_s": round(state["spent"], 1),
        "history": state["history"],
        "known_tokens": int(state["seen"].sum()),
        **(environment or {}),
    }
    backbone.logit_scale.data.fill_(math.log(_logit_scale(steps, steps)))
    _export(backbone.eval(), state["seen"], folder, record)
    return folder
