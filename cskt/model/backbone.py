"""The frozen CLIP: open_clip's models at a rectangular image size, and the embedded
``cskt-mini``."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE
from open_clip.pretrained import (
    download_pretrained,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer, to_2tuple
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cskt.checks import LONGEST_SIDE, is_image_size
from cskt.config import MINI
from cskt.errors import ConfigurationError, ModelError
from cskt.model import irra
from cskt.model.state_dicts import copy_state, read_checkpoint

ASSETS = Path(__file__).parents[1] / "assets"
RANDOM = "random"  # pretrained="random": untrained weights, of cskt-mini too
_ROWS, _IDS = "token_embedding.rows", "token_embedding.ids"
_TOKENS = "token_embedding.weight"  # the table that those two stand for
_POSITIONS = "visual.positional_embedding"
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "visual.attn_mask")
clip_tokenizer = functools.cache(open_clip.SimpleTokenizer)  # CLIP's byte-pair encoder
# CLIP's own temperature: no feature and no loss of ours reads it.
UNUSED = ("logit_scale", "logit_bias")


def create_backbone(
    name: str,
    pretrained: str | os.PathLike | None = None,
    image_size: tuple[int, int] | int | None = None,
) -> open_clip.CLIP:
    """An open_clip CLIP ViT in float32 and eval mode, for images of ``image_size`` = (height,
    width) pixels.

    ``pretrained``: None (random weights; for ``cskt-mini`` the embedded ones), ``"random"``, an
    open_clip tag such as ``"openai"``, or the path of a checkpoint file of open_clip, OpenAI or the
    IRRA family (:mod:`cskt.model.irra`).
    Position embeddings are resized to the image size (default: the model's own).
    :class:`ConfigurationError` for an unknown name, :class:`ModelError` for an unknown tag, an
    unfit file, a failed download.
    """
    config = model_config(name)
    vision = config["vision_cfg"]
    native = to_2tuple(vision.get("image_size", 224))
    patch = to_2tuple(vision["patch_size"])
    size = tuple(to_2tuple(image_size or native))
    # Checked before anything of that size is made.
    if not is_image_size(size) or size[0] < patch[0] or size[1] < patch[1]:
        raise ConfigurationError(
            f"image_size must be (height, width) in pixels, at least one patch of {name} "
            f"({patch[0]} x {patch[1]}) and at most {LONGEST_SIDE} a side, got {image_size!r}."
        )
    state = _weights(name, config, pretrained)
    vision["image_size"] = size
    backbone = open_clip.CLIP(**config).eval()
    if state is not None:
        source = f"pretrained={str(pretrained)!r} for {name}"
        grid = (native[0] // patch[0], native[1] // patch[1])
        if irra.is_irra(state):
            state = irra.clip_of(state, source)
            if _POSITIONS in state:
                grid = irra.grid_of(state[_POSITIONS])
        load_clip_state(backbone, state, grid, source)
    return backbone


def model_config(name: str) -> dict[str, Any]:
    """A fresh copy of the open_clip model config of ``name``; :class:`ConfigurationError` unless
    it is a ViT CLIP we know."""
    if name != MINI and name not in open_clip.list_models():
        raise ConfigurationError(
            f"backbone {name!r} is unknown; use {MINI!r} or a ViT of open_clip.list_models()."
        )
    if name == MINI:
        config = json.loads(_asset("json").read_text())
    else:
        config = open_clip.get_model_config(name)
    is_vit = bool(config["vision_cfg"].get("patch_size"))
    if not is_vit or "custom_text" in config or "hf_model_name" in config["text_cfg"]:
        raise ConfigurationError(
            f"backbone {name!r} is not a plain ViT CLIP; use one such as ViT-B-16-quickgelu or "
            "ViT-L-14."
        )
    return config


def _asset(kind: str) -> Path:
    path = ASSETS / f"{MINI}.{kind}"
    if not path.is_file():
        raise ModelError(
            f"{path} of {MINI} is missing; reinstall cskt or make it with: "
            "python -m cskt pretrain-mini"
        )
    return path


def tokenizer_for(name: str) -> Callable[[list[str]], Tensor]:
    """The tokenizer of a backbone: list of str -> LongTensor (B, 77), start and end tokens kept,
    padded with 0."""
    text = model_config(name)["text_cfg"]
    if "hf_tokenizer_name" in text:
        return open_clip.get_tokenizer(name)
    return clip_tokenizer(context_length=text.get("context_length", 77))


def known_token_ids(name: str) -> set[int] | None:
    """Tokens that the backbone has learned: those shipped with ``cskt-mini``; None (all) for any
    other backbone."""
    if name != MINI:
        return None
    shipped = load_file(_asset("safetensors"))
    return set(shipped[_IDS].tolist())


def load_clip_state(
    backbone: open_clip.CLIP, state: Mapping[str, Tensor], grid: tuple[int, int], source: str
) -> None:
    """Copies a CLIP state dict into ``backbone``, image positions resized from ``grid``; errors
    name ``source``."""
    state = {name: tensor for name, tensor in state.items() if name not in _NOT_WEIGHTS}
    own = backbone.state_dict()
    for name in set(UNUSED) & set(own):
        state[name] = state.get(name, own[name]).reshape(own[name].shape)
    if _POSITIONS in state:
        state[_POSITIONS] = resize_positions(state[_POSITIONS], grid, backbone.visual.grid_size)
    copy_state(own, state, source)


def resize_positions(
    positions: Tensor, native_grid: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Image positions (1 + rows * columns, W) moved to another grid as released: class row kept,
    bilinear. Their own grid is ``native_grid`` where the row count fits it, else the target's, else
    square."""
    target = tuple(grid)
    count = len(positions) - 1
    side = math.isqrt(max(count, 0))
    source = target
    for candidate in (native_grid, target, (side, side)):
        if math.prod(candidate) == count:
            source = candidate
            break
    if source == target:
        return positions
    class_row = positions[:1]
    cells = positions[1:].to(torch.promote_types(positions.dtype, torch.float32))
    picture = cells.t().unflatten(1, source)
    picture = F.interpolate(picture[None], size=target, mode="bilinear")[0]
    cells = picture.flatten(1).t()
    return torch.cat([class_row.to(cells.dtype), cells])


def fingerprint(backbone: nn.Module, weights: bool = True) -> str:
    """16 hex digits over the names, shapes and (with ``weights``) values of a backbone but CLIP's
    temperature.

    What counts are numbers as they were shipped. Of the token table the rows that are all zeros are
    left out and the others counted with their ids: of ``cskt-mini`` that is exactly what is
    shipped. Of the image positions only the class token's counts: the others are resized to the
    image size, and each chip rounds them in its own way.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        if name in UNUSED:
            continue
        digest.update(f"{name} {tuple(tensor.shape)};".encode())
        if not weights:
            continue
        values = tensor.detach().to("cpu", torch.float32)
        if name == _POSITIONS:
            values = values[:1]
        if name == _TOKENS:
            filled = values.any(dim=1)
            if not filled.all():
                ids = filled.nonzero()[:, 0]
                digest.update(ids.contiguous().numpy().data)
                values = values[filled]
        digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def save_mini(backbone: nn.Module, token_ids: Collection[int], path: str | os.PathLike) -> None:
    """Writes ``cskt-mini``'s weights in fp16: the token rows named, and every other tensor
    whole."""
    ids = torch.tensor(sorted(set(token_ids)), dtype=torch.int32)
    state = {}
    for name, tensor in backbone.state_dict().items():
        state[name] = tensor.detach().cpu().half().contiguous()
    table = state.pop(_TOKENS)
    state[_ROWS] = table[ids.long()]
    state[_IDS] = ids
    save_file(state, path)


def check_supported(backbone: nn.Module) -> None:
    """Raises a :class:`ModelError` unless ``backbone`` is a CLIP whose blocks
    :mod:`cskt.model.towers` can run."""
    visual = getattr(backbone, "visual", None)
    if (
        not isinstance(backbone, open_clip.CLIP)
        or not isinstance(visual, VisionTransformer)
        or visual.attn_pool is not None
        or visual.pool_type != "tok"
        or backbone.attn_mask is None
        or backbone.text_pool_type not in ("argmax", "eos")
        or not all(type(block) is ResidualAttentionBlock for block in blocks(backbone, "vision"))
        or not all(type(block) is ResidualAttentionBlock for block in blocks(backbone, "text"))
    ):
        raise ModelError(
            f"the backbone ({type(backbone).__name__}) is not an open_clip ViT CLIP with "
            "class-token pooling and a causal text tower; use one such as ViT-B-16-quickgelu."
        )


def weights_source(name: str, pretrained: str | os.PathLike | None) -> Path | str | None:
    """Where the weights of backbone ``name`` come from: a file, a tag that open_clip knows, or None
    (random).

    A tag wins over a local file of the same name; ``~`` stands for the home folder.
    :class:`ModelError` for neither, :class:`ConfigurationError` for an unknown backbone.
    """
    model_config(name)
    if pretrained is None and name == MINI:
        return _asset("safetensors")
    if pretrained in (None, RANDOM):
        return None
    assert pretrained is not None
    tag = str(pretrained)
    path = Path(pretrained).expanduser()
    if get_pretrained_cfg(name, tag):
        return tag
    if path.is_file():
        return path
    tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
    raise ModelError(
        f"pretrained={tag!r} is neither a tag of {name} (known: {tags}) nor an existing file "
        f"(looked at {path.absolute()}); give one of the tags or put the checkpoint file there."
    )


def _weights(
    name: str, config: dict[str, Any], pretrained: str | os.PathLike | None
) -> dict[str, Tensor] | None:
    """The state dict that ``pretrained`` stands for, None for random weights."""
    source = weights_source(name, pretrained)
    if source is None:
        return None
    if isinstance(source, Path):
        return _mini_state(config) if pretrained is None else read_checkpoint(source)
    known = get_pretrained_cfg(name, source)
    needs_quick_gelu = known.get("quick_gelu") and not config.get("quick_gelu")
    quick = f"{name}-quickgelu"
    if needs_quick_gelu and quick in open_clip.list_models():
        raise ConfigurationError(
            f"tag {source!r} was trained with QuickGELU; use the backbone {quick!r}."
        )
    return read_checkpoint(_download(name, source, known))


def _download(name: str, tag: str, known: dict[str, Any]) -> str:
    """The file of an open_clip tag: put into ~/.cache/clip by hand, in the hub's cache, or
    downloaded now."""
    url = known.get("url", "")
    repository = known["hf_hub"].rstrip("/")
    file = os.path.basename(url) or f"{name}-{tag}.safetensors"
    by_hand = Path.home() / ".cache" / "clip" / file
    if by_hand.is_file():
        return str(by_hand)
    for weights in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        cached = try_to_load_from_cache(repository, weights)
        if isinstance(cached, str) and os.path.isfile(cached):
            return cached
    try:
        _check_connection()
        return download_pretrained(known)
    except Exception as error:  # urllib, huggingface_hub and the file system each raise their own
        address = url or f"{ENDPOINT}/{repository}"
        raise ModelError(
            f"the weights of {name}, tag {tag!r}, could not be fetched from the Hugging Face hub "
            f"({repository}, {type(error).__name__}) and are neither in its cache {HF_HUB_CACHE} "
            f"nor at {by_hand}; download {address} on a connected machine and put the file there, "
            "or pass its path as pretrained."
        ) from error


def _check_connection() -> None:
    """The hub's client retries for a minute: ask once first. Any answer will do."""
    request = urllib.request.Request(ENDPOINT, method="HEAD")
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10).close()


def _mini_state(config: dict[str, Any]) -> dict[str, Tensor]:
    """The embedded weights; token rows that are not shipped are zeros: they carry no meaning, and
    no number that a version of torch happens to draw may decide whether a saved model is
    accepted."""
    state = load_file(_asset("safetensors"))
    rows = state.pop(_ROWS)
    ids = state.pop(_IDS)
    table = torch.zeros(config["text_cfg"]["vocab_size"], rows.shape[1])
    table[ids.long()] = rows.float()
    state[_TOKENS] = table
    return state


def blocks(backbone: open_clip.CLIP, tower: str) -> list[ResidualAttentionBlock]:
    """The transformer's blocks in the ``"text"`` or ``"vision"`` tower of a backbone."""
    owner = backbone.visual if tower == "vision" else backbone
    return list(owner.transformer.resblocks)
