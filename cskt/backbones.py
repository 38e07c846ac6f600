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
import warnings
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

from cskt.config import MINI
from cskt.errors import CSKTError

ASSETS = Path(__file__).parent / "assets"
RANDOM = "random"  # pretrained="random": untrained weights, of cskt-mini too
_ROWS, _IDS = "token_embedding.rows", "token_embedding.ids"
_TOKENS = "token_embedding.weight"  # the table that those two stand for
_POSITIONS = "visual.positional_embedding"
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "visual.attn_mask")
clip_tokenizer = functools.cache(open_clip.SimpleTokenizer)  # CLIP's byte-pair encoder
UNUSED = (
    "logit_scale",
    "logit_bias",
)  # CLIP's own temperature: no feature and no loss of ours reads it


def create_backbone(
    name: str,
    pretrained: str | os.PathLike | None = None,
    image_size: tuple[int, int] | int | None = None,
) -> open_clip.CLIP:
    """An open_clip CLIP ViT in float32 and eval mode, for images of ``image_size`` = (height,
    width) pixels.

    ``pretrained``: None (random weights; for ``cskt-mini`` the embedded ones), ``"random"``, an
    open_clip tag such as ``"openai"``, or the path of a checkpoint file of open_clip or OpenAI.
    Position embeddings are resized to the image size (default: the model's own). :class:`CSKTError`
    for an unknown name or tag, an unfit file, a failed download.
    """
    config = model_config(name)
    vision = config["vision_cfg"]
    native, patch = to_2tuple(vision.get("image_size", 224)), to_2tuple(vision["patch_size"])
    size = tuple(to_2tuple(image_size or native))
    if [type(side) for side in size] != [int, int] or size[0] < patch[0] or size[1] < patch[1]:
        raise CSKTError(
            f"image_size must be (height, width) in pixels, at least one patch of {name} "
            f"({patch[0]} x {patch[1]}), got {image_size!r}."
        )
    state = _weights(name, config, pretrained)
    vision["image_size"] = size
    backbone = open_clip.CLIP(**config).eval()
    if state is not None:
        grid = (native[0] // patch[0], native[1] // patch[1])
        load_clip_state(backbone, state, grid, f"pretrained={str(pretrained)!r} for {name}")
    return backbone


def model_config(name: str) -> dict[str, Any]:
    """A fresh copy of the open_clip model config of ``name``; :class:`CSKTError` unless it is a ViT
    CLIP we know."""
    if name != MINI and name not in open_clip.list_models():
        raise CSKTError(
            f"backbone {name!r} is unknown; use {MINI!r} or a ViT of open_clip.list_models()."
        )
    config = (
        json.loads(_asset("json").read_text()) if name == MINI else open_clip.get_model_config(name)
    )
    if (
        "custom_text" in config
        or not config["vision_cfg"].get("patch_size")
        or "hf_model_name" in config["text_cfg"]
    ):
        raise CSKTError(
            f"backbone {name!r} is not a plain ViT CLIP; use one such as ViT-B-16-quickgelu or ViT-L-14."
        )
    return config


def _asset(kind: str) -> Path:
    path = ASSETS / f"{MINI}.{kind}"
    if not path.is_file():
        raise CSKTError(
            f"{path} of {MINI} is missing; reinstall cskt or make it with: python -m cskt pretrain-mini"
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
    return set(load_file(_asset("safetensors"))[_IDS].tolist()) if name == MINI else None


def load_clip_state(
    backbone: nn.Module, state: Mapping[str, Tensor], grid: tuple[int, int], source: str
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
    count = len(positions) - 1
    side = math.isqrt(max(count, 0))
    source = next((g for g in (native_grid, grid, (side, side)) if g[0] * g[1] == count), grid)
    if source == tuple(grid):
        return positions
    cells = positions[1:].to(torch.promote_types(positions.dtype, torch.float32))
    cells = F.interpolate(cells.t().unflatten(1, source)[None], size=tuple(grid), mode="bilinear")[
        0
    ]
    return torch.cat([positions[:1].to(cells.dtype), cells.flatten(1).t()])


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, unpickling nothing else: .safetensors, torch.save or
    TorchScript (OpenAI)."""
    path = Path(path)
    if not path.is_file():
        raise CSKTError(
            f"checkpoint file {path} does not exist; give the path of an existing file."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(
            action="ignore"
        ):  # torch retires TorchScript, but OpenAI's files are made so
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except RuntimeError:  # a TorchScript archive
                content = torch.jit.load(path, map_location="cpu").state_dict()
    except Exception as error:  # each reader has its own exceptions; the user needs the file's name
        raise CSKTError(
            f"checkpoint file {path} cannot be read as tensors ({type(error).__name__}); give a complete "
            "file, saved from a plain state_dict."
        ) from error
    return unwrap_state(content, str(path))


def unwrap_state(content: Any, source: str) -> dict[str, Tensor]:
    """A state dict, whole or under ``state_dict`` or ``model``, without the prefix of a
    data-parallel wrapper."""
    if isinstance(content, Mapping):
        content = next(
            (content[k] for k in ("state_dict", "model") if isinstance(content.get(k), Mapping)),
            content,
        )
    if not isinstance(content, Mapping) or not content:
        raise CSKTError(
            f"{source} holds no state dict; save model.state_dict(), bare or under 'state_dict'."
        )
    wrapped = all(str(name).startswith("module.") for name in content)
    return {str(name)[len("module.") * wrapped :]: value for name, value in content.items()}


@torch.no_grad()
def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Any], source: str) -> None:
    """Copies ``state`` into the tensors ``own`` by name; a :class:`CSKTError` lists what is
    missing, surplus or of the wrong shape, and nothing is copied."""
    shapes = {name: tuple(getattr(value, "shape", ("no tensor",))) for name, value in state.items()}
    wrong = [
        f"{name} (expected {tuple(tensor.shape)}, got {shapes[name]})"
        for name, tensor in own.items()
        if shapes.get(name, tensor.shape) != tensor.shape
    ]
    faults = {
        "missing": [name for name in own if name not in shapes],
        "surplus": [name for name in shapes if name not in own],
        "of the wrong shape": wrong,
    }
    found = "; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items() if names)
    if found:
        raise CSKTError(
            f"{source} does not fit the model ({found}); use a checkpoint made for this configuration."
        )
    for name, tensor in own.items():
        tensor.copy_(state[name])


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
        if name == _TOKENS and not (filled := values.any(dim=1)).all():
            digest.update(filled.nonzero()[:, 0].numpy())
            values = values[filled]
        digest.update(values.contiguous().numpy())
    return digest.hexdigest()[:16]


def save_mini(backbone: nn.Module, token_ids: Collection[int], path: str | os.PathLike) -> None:
    """Writes ``cskt-mini``'s weights in fp16: the token rows named, and every other tensor
    whole."""
    ids = torch.tensor(sorted(set(token_ids)), dtype=torch.int32)
    state = {name: tensor.detach().cpu().half() for name, tensor in backbone.state_dict().items()}
    rows = state.pop(_TOKENS)[ids.long()]
    save_file({name: t.contiguous() for name, t in {**state, _ROWS: rows, _IDS: ids}.items()}, path)


def check_supported(backbone: nn.Module) -> None:
    """Raises a :class:`CSKTError` unless ``backbone`` is a CLIP whose blocks
    :mod:`cskt.model.towers` can run."""
    visual = getattr(backbone, "visual", None)
    if not (
        isinstance(backbone, open_clip.CLIP)
        and isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and backbone.attn_mask is not None
        and backbone.text_pool_type in ("argmax", "eos")
        and all(
            type(b) is ResidualAttentionBlock
            for t in (visual, backbone)
            for b in t.transformer.resblocks
        )
    ):
        raise CSKTError(
            f"the backbone ({type(backbone).__name__}) is not an open_clip ViT CLIP with class-token "
            "pooling and a causal text tower; use one such as ViT-B-16-quickgelu."
        )


def weights_source(name: str, pretrained: str | os.PathLike | None) -> Path | str | None:
    """Where the weights of backbone ``name`` come from: a file, a tag that open_clip knows, or None
    (random).

    A tag wins over a local file of the same name; ``~`` stands for the home folder.
    :class:`CSKTError` for neither, and for an unknown backbone.
    """
    model_config(name)
    if pretrained is None and name == MINI:
        return _asset("safetensors")
    if pretrained in (None, RANDOM):
        return None
    tag, path = str(pretrained), Path(pretrained).expanduser()
    if get_pretrained_cfg(name, tag):
        return tag
    if path.is_file():
        return path
    tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
    raise CSKTError(
        f"pretrained={tag!r} is neither a tag of {name} (known: {tags}) nor an existing file (looked "
        f"at {path.absolute()}); give one of the tags or put the checkpoint file there."
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
    tag, known = source, get_pretrained_cfg(name, source)
    if (
        known.get("quick_gelu")
        and not config.get("quick_gelu")
        and f"{name}-quickgelu" in open_clip.list_models()
    ):
        raise CSKTError(
            f"tag {tag!r} was trained with QuickGELU; use the backbone {name + '-quickgelu'!r}."
        )
    return read_checkpoint(_download(name, tag, known))


def _download(name: str, tag: str, known: dict[str, Any]) -> str:
    """The file of an open_clip tag: put into ~/.cache/clip by hand, in the hub's cache, or
    downloaded now."""
    url, repository = known.get("url", ""), known["hf_hub"].rstrip("/")
    by_hand = (
        Path.home() / ".cache" / "clip" / (os.path.basename(url) or f"{name}-{tag}.safetensors")
    )
    cached = [
        try_to_load_from_cache(repository, f"open_clip_{f}")
        for f in ("model.safetensors", "pytorch_model.bin")
    ]
    for path in (by_hand, *cached):
        if isinstance(path, str | Path) and os.path.isfile(path):
            return str(path)
    try:
        with contextlib.suppress(
            urllib.error.HTTPError
        ):  # the hub's client retries for a minute: ask once first
            urllib.request.urlopen(
                urllib.request.Request(ENDPOINT, method="HEAD"), timeout=10
            ).close()
        return download_pretrained(known)
    except Exception as error:  # urllib, huggingface_hub and the file system each raise their own
        raise CSKTError(
            f"the weights of {name}, tag {tag!r}, could not be fetched from the Hugging Face hub ({repository}, "
            f"{type(error).__name__}) and are neither in its cache {HF_HUB_CACHE} nor at {by_hand}; download "
            f"{url or f'{ENDPOINT}/{repository}'} on a connected machine and put the file there, or pass its path as "
            "pretrained."
        ) from error


def _mini_state(config: dict[str, Any]) -> dict[str, Tensor]:
    """The embedded weights; token rows that are not shipped are zeros: they carry no meaning, and
    no number that a version of torch happens to draw may decide whether a saved model is
    accepted."""
    state = load_file(_asset("safetensors"))
    rows, ids = state.pop(_ROWS), state.pop(_IDS)
    shape = config["text_cfg"]["vocab_size"], rows.shape[1]
    table = torch.zeros(shape)
    table[ids.long()] = rows.float()
    return {**state, _TOKENS: table}
