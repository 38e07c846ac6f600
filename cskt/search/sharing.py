"""Indexing by several processes, as ``torchrun`` starts them: each takes a share of the images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from lightning_fabric import Fabric

from cskt.numerics import resolve_device
from cskt.ranks import Ranks
from cskt.search.indexing import Added
from cskt.search.pictures import Item, Refusal, attempt


def started_ranks() -> Ranks:
    """The processes that ``torchrun`` started, connected; without it this one alone."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return Ranks()
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    device = resolve_device("auto")
    fabric = Fabric(accelerator=device, devices=local, num_nodes=world // local, strategy="ddp")
    fabric.launch()
    return Ranks(fabric)


def share_of(
    ranks: Ranks, items: Sequence[Item], pool: ThreadPoolExecutor, added: Added
) -> list[Item]:
    """This rank's part of the images.

    Of a content that several ranks have been given, only the first copy is kept, as one process
    would: the others are counted as known. What all ranks have skipped is left to the first.
    """
    if ranks.count == 1:
        return list(items)
    if not ranks.first:
        added.skipped.clear()
    mine = items[ranks.share(len(items))]
    digests = list(pool.map(attempt(Item.digest), mine))
    earlier: set[Any] = set()
    for theirs in _of_all(ranks, digests)[: ranks.rank]:
        earlier.update(digest for digest in theirs if not isinstance(digest, Refusal))
    kept = []
    for item, digest in zip(mine, digests, strict=True):
        if digest in earlier:
            added.known += 1
        else:
            kept.append(item)
    return kept


def total_of(ranks: Ranks, added: Added) -> Added:
    """What all ranks did."""
    total = Added()
    for part in _of_all(ranks, added):
        total.added += part.added
        total.known += part.known
        total.skipped.update(part.skipped)
    return total


def _of_all(ranks: Ranks, mine: Any) -> list[Any]:
    """What every rank has, in their order."""
    if ranks.count == 1:
        return [mine]
    gathered: list[Any] = [None] * ranks.count
    torch.distributed.all_gather_object(gathered, mine)
    return gathered
