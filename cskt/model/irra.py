"""Checkpoints of the IRRA family: a CLIP, under ``base_model.``, beside heads that only training
needs.

IRRA (Jiang and Ye, CVPR 2023) was the starting point of many: RDE, and the pre-training of NAM and
HAM, save their models under the same names.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from cskt.errors import ModelError

log = logging.getLogger(__name__)
_PREFIX = "base_model."
# Of IRRA (anosorae/IRRA, model/build.py) and of RDE (QinYang79/RDE, model/build.py).
HEADS = (
    "classifier",
    "cross_attn",
    "cross_modal_transformer",
    "ln_pre_t",
    "ln_pre_i",
    "ln_post",
    "mlm_head",
    "visul_emb_layer",
    "texual_emb_layer",
)


def is_irra(state: Iterable[str]) -> bool:
    """Whether a state dict, or its names, is of this family."""
    return any(name.startswith(_PREFIX) for name in state)


def heads_of(state: Iterable[str], source: str) -> list[str]:
    """The parts beside the CLIP, sorted; :class:`ModelError`, which names ``source``, if one of
    them is none of :data:`HEADS`."""
    beside = {name.split(".")[0] for name in state if not name.startswith(_PREFIX)}
    unknown = sorted(beside - set(HEADS))
    if unknown:
        raise ModelError(
            f"{source} holds a CLIP under base_model and {', '.join(unknown)}, which the IRRA "
            "family does not have; save the state dict of its CLIP alone and give that file."
        )
    return sorted(beside)


def clip_of(state: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The CLIP's tensors under the CLIP's own names; which heads are left out is logged, once a
    process. Errors as of :func:`heads_of`."""
    heads = heads_of(state, source)
    _say_once(f"{source}: CLIP of the IRRA family, left out: {', '.join(heads) or 'nothing'}")
    clip = {}
    for name, value in state.items():
        if name.startswith(_PREFIX):
            clip[name.removeprefix(_PREFIX)] = value
    return clip


def grid_of(positions: Tensor) -> tuple[int, int]:
    """Rows and columns of the patches that image positions (1 + rows * columns, W) belong to: the
    family's images are three times as high as wide (384 x 128, 24 x 8 patches of 16)."""
    columns = math.isqrt((len(positions) - 1) // 3)
    return 3 * columns, columns


@functools.cache
def _say_once(message: str) -> None:
    log.info(message)
