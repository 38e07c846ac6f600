"""Who reads the prompts: attention recorded from the towers that train.

The weights come from :class:`cskt.model.recording.Record`, never from a second implementation.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cskt.model.cskt import CSKT
from cskt.model.recording import Record

Layers = Collection[int] | None  # counted from 0; None: all

FEATURE_READERS = ("class token", "end token")  # what becomes the feature
KINDS = {"own": True, "projected": False}  # prompts of this tower, or made from the other tower's
INDEX = ["tower", "layer", "head", "reader", "prompts"]


def traffic(
    model: CSKT, images: Tensor, token_ids: Tensor, layers: Layers = None, batch_size: int = 16
) -> pd.DataFrame:
    """How much attention is paid to the prompts: a row per tower, layer, head, reader and kind of
    prompt.

    ``share`` is the mean over all images, or captions, of the part of a reader's attention that
    goes to prompts of that kind, and ``uniform`` what it would be if each reader looked at all that
    it can see alike.
    """
    rows: list[dict[str, Any]] = []
    for tower, inputs in (("vision", images), ("text", token_ids)):
        for batch in inputs.split(batch_size):
            record = record_tower(model, tower, batch, layers)
            for layer, weights in record.attention.items():
                width = weights.shape[2]
                readers = reader_masks(model, tower, batch, width)
                for reader, mask in readers.items():
                    for row in _attention_to_prompts(model, tower, weights, mask):
                        rows.append({"layer": layer, "reader": reader, **row})
    columns = [*INDEX, "share", "uniform", "count"]
    sums = pd.DataFrame(rows, columns=columns)
    totals = sums.groupby(INDEX, sort=False).sum()
    count = totals.pop("count")
    return totals.div(count, axis=0).reset_index()


def _attention_to_prompts(
    model: CSKT, tower: str, weights: Tensor, mask: Tensor
) -> list[dict[str, Any]]:
    """Sums over a batch's readers (B or 1, width) of what they give to each kind of prompt, by
    head, of weights (B, heads, width, width); ``count`` is the number of readers."""
    batch, heads, width, _ = weights.shape
    mask = mask.expand(batch, -1)
    readers = mask.sum().item()
    prompts = prompt_columns(model, tower)
    is_own = model.prompts.own(tower).cpu()
    visible = _visible_columns(tower, width)
    rows = []
    for kind, wanted in KINDS.items():
        columns = prompts[is_own == wanted]
        number = len(columns)
        if number == 0:
            continue
        given = weights[..., columns].sum(-1)
        of_readers = given * mask[:, None].to(weights)
        shares = of_readers.sum((0, 2))
        uniform = (mask * number / visible).sum()
        for head in range(heads):
            row = {
                "tower": tower,
                "head": head,
                "prompts": kind,
                "share": shares[head].item(),
                "uniform": uniform.item(),
                "count": readers,
            }
            rows.append(row)
    return rows


def traffic_table(
    before: pd.DataFrame, after: pd.DataFrame, readers: Sequence[str] = FEATURE_READERS
) -> pd.DataFrame:
    """Attention of ``readers`` to each kind of prompt in percent, mean over layers and heads: a row
    per tower and kind; frames of :func:`traffic` before and after training."""
    trained = after[after["reader"].isin(readers)]
    untrained = before[before["reader"].isin(readers)]
    keys = ["tower", "reader", "prompts"]
    after_training = trained.groupby(keys, sort=False)
    before_training = untrained.groupby(keys, sort=False)
    shares = {
        "before training": before_training["share"].mean(),
        "trained": after_training["share"].mean(),
        "if spread evenly": after_training["uniform"].mean(),
    }
    percent = 100 * pd.DataFrame(shares)
    return percent.reset_index()


def prompt_names(model: CSKT, tower: str) -> list[str]:
    """Names of the P prompts in the ``"vision"`` or ``"text"`` tower, row by row, such as "own 1"
    or "projected 4"."""
    names: list[str] = []
    counts = {"own": 0, "projected": 0}
    for is_own in model.prompts.own(tower).tolist():
        kind = "own" if is_own else "projected"
        counts[kind] += 1
        names.append(f"{kind} {counts[kind]}")
    return names


def prompt_maps(model: CSKT, images: Tensor, layers: Layers = None) -> Tensor:
    """(B, layers, heads, P, rows, columns): the attention that each patch of each image pays to
    each prompt."""
    record = record_tower(model, "vision", images, layers)
    grid = patch_grid(model)
    behind_patches = 1 + math.prod(grid)
    patches = slice(1, behind_patches)
    prompts = slice(behind_patches, None)
    by_layer = [weights[:, :, patches, prompts] for weights in record.attention.values()]
    by_patch = torch.stack(by_layer, dim=1)
    by_prompt = by_patch.transpose(-1, -2)
    return by_prompt.unflatten(-1, grid).cpu()


def record_tower(model: CSKT, tower: str, inputs: Tensor, layers: Layers = None) -> Record:
    """What the ``"vision"`` or ``"text"`` tower does with ``inputs``, in eval mode and without
    gradients."""
    record = Record(layers)
    encode = model.encode_image if tower == "vision" else model.encode_text
    was_training = model.training
    model.eval()
    with torch.no_grad():
        encode(inputs.to(model.device), record=record)
    model.train(was_training)
    return record


def patch_grid(model: CSKT) -> tuple[int, int]:
    """Rows and columns of patches that the vision tower reads."""
    vision_tower: Any = model.backbone.visual
    rows, columns = vision_tower.grid_size
    return rows, columns


def prompt_columns(model: CSKT, tower: str) -> Tensor:
    """(P,) int: where the prompts stand among a recorded tower's columns: behind the class token
    and the patches in vision, behind the start token in text."""
    first = 1
    if tower == "vision":
        first += math.prod(patch_grid(model))
    return torch.arange(first, first + model.num_prompts)


def end_columns(model: CSKT, token_ids: Tensor, width: int) -> Tensor:
    """(B,) int: where captions (B, L) end among the ``width`` columns of the text tower, which the
    prompts shift to the right."""
    is_end = torch.eq(token_ids.cpu(), model.end_token)
    ends = is_end.int().argmax(dim=1)
    shifted = ends + model.num_prompts
    return shifted.clamp(max=width - 1)


def reader_masks(model: CSKT, tower: str, inputs: Tensor, width: int) -> dict[str, Tensor]:
    """(B or 1, width) bool by reader: which of a recorded tower's columns it is."""
    place = torch.arange(width)[None]
    if tower == "vision":
        first_prompt = width - model.num_prompts
        patches = (place > 0) & (place < first_prompt)
        return {"class token": place == 0, "patches": patches}
    last_prompt = model.num_prompts
    end = end_columns(model, inputs, width)[:, None]
    words = (place > last_prompt) & (place < end)
    return {"words": words, "end token": place == end}


def _visible_columns(tower: str, width: int) -> Tensor:
    """(width,) int: how many columns each one can read: text reads to the left only."""
    if tower == "text":
        return torch.arange(1, width + 1)
    return torch.full((width,), width)
