"""How the embedded backbone cskt-mini is made: plain CLIP training in fp32 on the generic corpus,
in one run.

In three steps of four a few random prompt rows stand in both towers, drawn anew each time, so that
the backbone learns to tolerate rows that mean nothing yet; so few tokens (33 image rows) would
otherwise drown in untrained prompts.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor
from tqdm import tqdm

from cskt.config import MINI, CSKTConfig, cache_dir
from cskt.data.augment import normalize
from cskt.errors import ConfigurationError, RunError
from cskt.files import write_atomically, write_json
from cskt.losses import itc_loss
from cskt.model.backbone import RANDOM, create_backbone, save_mini, tokenizer_for
from cskt.model.cskt import CSKT
from cskt.synthetic import VERSION
from cskt.synthetic.corpus import build_corpus, corpus_caption

log = logging.getLogger(__name__)

Tokenizer = Callable[[list[str]], Tensor]
Facts = list[dict[str, Any]]

SAMPLES, IMAGES = 320_000, 80_000  # pairs seen, images drawn: about half an hour of two cores
BATCH_SIZE = 128
# The logit scale rises from CLIP's start to SDM's 1 / 0.02, so that the backbone fits it.
FIRST_SCALE = 1 / 0.07
LAST_SCALE = 50.0
LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.05
CHECKPOINT_EVERY = 100


@dataclass
class Progress:
    """How far a run is: steps done, seconds ``spent``, the tokens ``seen`` (vocabulary,) bool, and
    a line of ``history`` for each checkpoint."""

    step: int
    spent: float
    seen: Tensor
    history: list[dict[str, float]] = field(default_factory=list)


def pretrain_mini(
    samples: int = SAMPLES,
    output: str | Path = "runs/pretrain-mini",
    images: int = IMAGES,
    seed: int = 0,
    stop_after: float | None = None,
    environment: dict[str, Any] | None = None,
) -> Path:
    """Pre-train cskt-mini on the CPU; calling it again with the same arguments resumes.

    Args:
        samples: image-caption pairs seen in all; each epoch over ``images`` draws new captions.
        output: folder for ``state.pt`` (to resume) and, when done, ``cskt-mini.safetensors`` and
            its run file.
        stop_after: seconds after which to stop at the next checkpoint, to go on in a later call.
        environment: facts about machine and commit to put in the run file.
    """
    if samples < BATCH_SIZE or images < BATCH_SIZE:
        raise ConfigurationError(
            f"samples and images must be at least one batch of {BATCH_SIZE}, "
            f"got {samples} and {images}."
        )
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    pixels, facts = build_corpus(cache_dir() / f"pretraining-corpus-{VERSION}", images)
    torch.manual_seed(seed)
    backbone = create_backbone(MINI, pretrained=RANDOM)
    backbone.train().requires_grad_(True)
    optimizer = _optimizer(backbone)
    tokenize = tokenizer_for(MINI)
    settings = {"samples": samples, "images": images, "seed": seed}
    progress = _resume(folder / "state.pt", settings, backbone, optimizer)
    steps = samples // BATCH_SIZE
    started = time.monotonic()
    already_spent = progress.spent
    bar = tqdm(range(progress.step, steps), "pre-training", initial=progress.step, total=steps)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, steps)
        scale = _logit_scale(step, steps)
        loss, tokens = _step(backbone, optimizer, pixels, facts, step, seed, scale, tokenize)
        progress.seen[tokens.unique()] = True
        bar.set_postfix(loss=f"{loss:.3f}", scale=f"{scale:.1f}")
        last = step + 1 == steps
        if (step + 1) % CHECKPOINT_EVERY != 0 and not last:
            continue
        elapsed = time.monotonic() - started
        progress.step = step + 1
        progress.spent = already_spent + elapsed
        progress.history.append(
            {"step": step + 1, "loss": loss, "scale": scale, "seconds": progress.spent}
        )
        _checkpoint(folder / "state.pt", progress, settings, backbone, optimizer)
        if stop_after and elapsed > stop_after and not last:
            log.info("stopped at step %d of %d; call again to go on", step + 1, steps)
            return folder
    backbone.logit_scale.data.fill_(math.log(_logit_scale(steps, steps)))
    _export(backbone.eval(), progress, folder)
    record = _record(progress, settings, steps, environment or {})
    write_json(folder / f"{MINI}.run.json", record)
    return folder


def _step(
    backbone: open_clip.CLIP,
    optimizer: torch.optim.Optimizer,
    pixels: np.ndarray,
    facts: Facts,
    step: int,
    seed: int,
    scale: float,
    tokenize: Tokenizer,
) -> tuple[float, Tensor]:
    """One optimiser step; all its random numbers follow from (seed, step). Returns the loss and the
    tokens seen."""
    rng = np.random.default_rng((seed, step))
    torch.manual_seed(seed * 1_000_003 + step)
    rows = _rows(step, seed, len(facts))
    images = _shifted(pixels[rows], rng)
    captions = [corpus_caption(facts[row], rng) for row in rows]
    tokens = tokenize(captions)
    model = _with_random_prompts(backbone, rng)
    image_features = model.encode_image(normalize(images))
    text_features = model.encode_text(tokens)
    loss = itc_loss(image_features, text_features, temperature=1 / scale)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
    optimizer.step()
    return loss.item(), tokens


def _rows(step: int, seed: int, items: int) -> np.ndarray:
    """The items of a step's batch: every epoch goes through all of them in an order of its own."""
    epoch, start = divmod(step * BATCH_SIZE, items)
    order = np.random.default_rng((seed, 1_000_000 + epoch)).permutation(items)
    return order[start : start + BATCH_SIZE]


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


def _checkpoint(
    path: Path,
    progress: Progress,
    settings: dict[str, int],
    backbone: open_clip.CLIP,
    optimizer: torch.optim.Optimizer,
) -> None:
    state = {
        "step": progress.step,
        "spent": progress.spent,
        "seen": progress.seen,
        "history": progress.history,
        "settings": settings,
        "backbone": backbone.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    write_atomically(path, functools.partial(torch.save, state))


def _resume(
    path: Path,
    settings: dict[str, int],
    backbone: open_clip.CLIP,
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """The progress in the checkpoint, whose weights are loaded; a fresh one where there is none."""
    if not path.exists():
        vocabulary = len(backbone.token_embedding.weight)
        return Progress(step=0, spent=0.0, seen=torch.zeros(vocabulary, dtype=torch.bool))
    state = torch.load(path, weights_only=True)
    if state["settings"] != settings:
        raise RunError(f"{path} belongs to another run ({state['settings']}); use another output.")
    backbone.load_state_dict(state["backbone"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(state["step"], state["spent"], state["seen"], state["history"])


def _export(backbone: open_clip.CLIP, progress: Progress, folder: Path) -> None:
    """Write the weights, of the token rows only those that were seen."""
    known = progress.seen.nonzero()[:, 0].tolist()
    write = functools.partial(save_mini, backbone, known)
    write_atomically(folder / f"{MINI}.safetensors", write)


def _record(
    progress: Progress, settings: dict[str, int], steps: int, environment: dict[str, Any]
) -> dict[str, Any]:
    """The run file: what made these weights."""
    return {
        "kind": "pretraining",
        "model": MINI,
        "data": "generic synthetic corpus",
        "data_version": VERSION,
        "precision": "fp32",
        "batch_size": BATCH_SIZE,
        **settings,
        "steps": steps,
        "duration_s": round(progress.spent, 1),
        "history": progress.history,
        "known_tokens": int(progress.seen.sum()),
        **environment,
    }
