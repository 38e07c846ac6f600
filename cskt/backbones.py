"""The frozen CLIP: open_clip's models at a rectangular image size, and the embedded ``cskt-mini``."""

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
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cskt.config import MINI, CSKTError

ASSETS = Path(__file__).parent / "assets"
RANDOM = "random"  # pretrained="random": untrained weights of any backbone, cskt-mini included
_ROWS, _IDS = "token_embedding.rows", "token_embedding.ids"
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "visual.attn_mask")
_UNUSED = ("logit_scale", "logit_bias")  # CLIP's own temperature: no feature and no loss of ours reads it


def create_backbone(name: str, pretrained: str | os.PathLike | None = None,
                    image_size: tuple[int, int] | int | None = None) -> open_clip.CLIP:
    """An open_clip CLIP ViT in float32 and eval mode, for images of ``image_size`` = (height, width) pixels.

    ``pretrained``: None (random weights; for ``cskt-mini`` the embedded ones), ``"random"``, an open_clip tag such as
    ``"openai"``, or the path of a checkpoint: an open_clip state dict (.pt, .safetensors) or OpenAI's .pt, plain or
    TorchScript. Position embeddings are resized to the image size (default: the model's own).
    :class:`CSKTError` for an unknown name or tag, a missing or unfit file, a failed download.
    """
    config = model_config(name)
    native, patch = _pair(config["vision_cfg"].get("image_size", 224)), _pair(config["vision_cfg"]["patch_size"])
    size = _pair(image_size or native)
    if min(size) < 1 or size[0] < patch[0] or size[1] < patch[1]:
        raise CSKTError(f"image_size must be at least one patch of {name}, {patch[0]} x {patch[1]}, got {size}.")
    state = _weights(name, config, pretrained)
    config["vision_cfg"]["image_size"] = size
    backbone = open_clip.CLIP(**config).eval()
    if state is not None:
        native_grid = (native[0] // patch[0], native[1] // patch[1])
        source = f"pretrained={str(pretrained)!r} for {name}"
        load_clip_state(backbone, state, native_grid, source)
    return backbone


def model_config(name: str) -> dict[str, Any]:
    """A fresh copy of the open_clip model config of ``name``; :class:`CSKTError` unless it is a ViT CLIP we know."""
    if name == MINI:
        config = json.loads(_asset("json").read_text())
    else:
        config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        close = [known for known in open_clip.list_models() if known.lower().startswith(str(name).lower()[:5])]
        hint = ", ".join(close[:12]) or "ViT-B-16-quickgelu, ViT-B-32, ViT-L-14"
        raise CSKTError(f"backbone {name!r} is unknown; use {MINI!r} or an open_clip ViT such as {hint}.")
    vision = config["vision_cfg"]
    if (config.get("custom_text") or "multimodal_cfg" in config or "timm_model_name" in vision
            or not isinstance(vision.get("layers"), int) or "hf_model_name" in config["text_cfg"]):
        raise CSKTError(f"backbone {name!r} is not a plain ViT CLIP; use one such as ViT-B-16-quickgelu or ViT-L-14.")
    return config


def tokenizer_for(name: str) -> Callable[[list[str]], Tensor]:
    """The tokenizer of a backbone: list of str -> LongTensor (B, 77), start and end tokens kept, padded with 0."""
    text = model_config(name)["text_cfg"]
    if "hf_tokenizer_name" in text:
        return open_clip.get_tokenizer(name)
    return clip_tokenizer(text.get("context_length", 77))


@functools.lru_cache(maxsize=4)
def clip_tokenizer(context_length: int = 77) -> open_clip.SimpleTokenizer:
    """CLIP's byte-pair encoder."""
    return open_clip.SimpleTokenizer(context_length=context_length)


def known_token_ids(name: str) -> set[int] | None:
    """Tokens that the backbone has learned: those shipped with ``cskt-mini``; None (all) for any other backbone."""
    return set(load_file(_asset("safetensors"))[_IDS].tolist()) if name == MINI else None


def load_clip_state(backbone: nn.Module, state: Mapping[str, Tensor], native_grid: tuple[int, int],
                    source: str) -> None:
    """Copies a CLIP state dict into ``backbone``, image positions resized to its grid; errors name ``source``."""
    state = {name: tensor for name, tensor in state.items() if name not in _NOT_WEIGHTS}
    expected = backbone.state_dict()
    for name in _UNUSED:
        if name in expected:
            state[name] = state.get(name, expected[name]).reshape(expected[name].shape)
    positions = "visual.positional_embedding"
    if positions in state:
        state[positions] = resize_positions(state[positions], native_grid, backbone.visual.grid_size)
    check_state({name: tensor.shape for name, tensor in expected.items()}, state, source)
    backbone.load_state_dict(state)


def resize_positions(positions: Tensor, native_grid: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Image positions (1 + rows * columns, W) moved to another grid as released: class row kept, bilinear.

    The source grid is ``native_grid`` where the row count fits it, else the target's own, else square.
    """
    count, side = len(positions) - 1, math.isqrt(max(len(positions) - 1, 0))
    fitting = [g for g in (native_grid, grid, (side, side)) if g[0] * g[1] == count]
    if not fitting or fitting[0] == tuple(grid):
        return positions
    cells = positions[1:].to(torch.promote_types(positions.dtype, torch.float32))
    cells = cells.reshape(1, *fitting[0], -1).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=tuple(grid), mode="bilinear", align_corners=False)
    return torch.cat([positions[:1].to(cells.dtype), cells[0].flatten(1).t()])


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, unpickling nothing else: .safetensors, torch.save or TorchScript (OpenAI)."""
    path = Path(path)
    if not path.is_file():
        raise CSKTError(f"checkpoint file {path} does not exist; give the path of an existing file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is retired, OpenAI's files are not
                return dict(torch.jit.load(path, map_location="cpu").state_dict())
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own exceptions; the user needs the file's name
        raise CSKTError(f"checkpoint file {path} cannot be read as tensors ({type(error).__name__}); give a complete "
                        "file, saved from a plain state_dict.") from error
    return unwrap_state(content, str(path))


def unwrap_state(content: Any, source: str) -> dict[str, Tensor]:
    """A state dict, whole or under ``state_dict`` or ``model``, without the prefix of a data-parallel wrapper."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CSKTError(f"{source} holds no state dict; save model.state_dict(), bare or under 'state_dict'.")
    wrapped = all(str(name).startswith("module.") for name in content)
    return {str(name)[len("module.") * wrapped:]: value for name, value in content.items()}


def check_state(expected: Mapping[str, torch.Size], state: Mapping[str, Any], source: str) -> None:
    """Raises a :class:`CSKTError` that lists missing, surplus and wrong-shaped entries by name."""
    shapes = {name: tuple(getattr(value, "shape", ("no tensor",))) for name, value in state.items()}
    wrong = [f"{name} (expected {tuple(shape)}, got {shapes[name]})" for name, shape in expected.items()
             if name in shapes and shapes[name] != tuple(shape)]
    faults = {
        "missing": [name for name in expected if name not in shapes],
        "surplus": [name for name in shapes if name not in expected],
        "of the wrong shape": wrong,
    }
    found = "; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items() if names)
    if found:
        raise CSKTError(f"{source} does not fit the model ({found}); use a checkpoint made for this configuration.")


def fingerprint(backbone: nn.Module, weights: bool = True) -> str:
    """16 hex digits over the names, shapes and (in float32) values of a backbone's tensors but CLIP's temperature.

    ``weights=False`` covers names and shapes only, for a backbone that is itself trained.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        if name not in _UNUSED:
            digest.update(f"{name} {tuple(tensor.shape)};".encode())
            if weights:
                digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()[:16]


def save_mini(backbone: nn.Module, token_ids: Collection[int], path: str | os.PathLike) -> None:
    """Writes ``cskt-mini``'s weights in fp16: the token rows named, and every other tensor whole."""
    ids = torch.tensor(sorted(set(token_ids)), dtype=torch.int32)
    state = {name: tensor.detach().cpu().half() for name, tensor in backbone.state_dict().items()}
    rows = state.pop("token_embedding.weight")[ids.long()]
    save_file({name: t.contiguous() for name, t in {**state, _ROWS: rows, _IDS: ids}.items()}, path)


def check_supported(backbone: nn.Module) -> None:
    """Raises a :class:`CSKTError` unless ``backbone`` is a CLIP whose blocks :mod:`cskt.model.towers` can run."""
    visual = getattr(backbone, "visual", None)
    fits = isinstance(backbone, open_clip.CLIP) and isinstance(visual, VisionTransformer)
    fits = fits and visual.attn_pool is None and visual.pool_type == "tok" and backbone.attn_mask is not None
    fits = fits and backbone.text_pool_type in ("argmax", "eos")
    if not fits or not all(type(b) is ResidualAttentionBlock for t in (visual, backbone)
                           for b in t.transformer.resblocks):
        raise CSKTError(f"the backbone ({type(backbone).__name__}) is not an open_clip ViT CLIP with class-token "
                        "pooling and a causal text tower; use one such as ViT-B-16-quickgelu.")


def _weights(name: str, config: dict[str, Any], pretrained: str | os.PathLike | None) -> dict[str, Tensor] | None:
    """The state dict that ``pretrained`` stands for, None for random weights."""
    if pretrained == RANDOM or (pretrained is None and name != MINI):
        return None
    if pretrained is None:
        return _mini_state(config)
    tag = str(pretrained)
    known = get_pretrained_cfg(name, tag)
    if not known:
        if Path(tag).expanduser().is_file():
            return read_checkpoint(Path(tag).expanduser())
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise CSKTError(f"pretrained={tag!r} is neither a tag of {name} (known: {tags}) nor an existing file (looked "
                        f"at {Path(tag).absolute()}); give one of the tags or put the checkpoint file there.")
    if known.get("quick_gelu") and not config.get("quick_gelu") and f"{name}-quickgelu" in open_clip.list_models():
        raise CSKTError(f"tag {tag!r} was trained with QuickGELU; use the backbone {name + '-quickgelu'!r}.")
    return read_checkpoint(_download(name, tag, known))


def _download(name: str, tag: str, known: dict[str, Any]) -> str:
    """The file of an open_clip tag: put into ~/.cache/clip by hand, in the hub's cache, or downloaded now."""
    url, hub = known.get("url", ""), known.get("hf_hub", "").rstrip("/")
    by_hand = Path.home() / ".cache" / "clip" / (os.path.basename(url) or f"{name}-{tag}.safetensors")
    if by_hand.is_file():
        return str(by_hand)
    if hub:
        repository, _, file = known["hf_hub"].rpartition("/")
        files = (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        for cached in (try_to_load_from_cache(repository, file) for file in files):
            if isinstance(cached, str):
                return cached
    try:
        # The hub's client retries for most of a minute when there is no network, so ask once first.
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(ENDPOINT if hub else url, method="HEAD"), timeout=10).close()
        return download_pretrained(known)
    except Exception as error:  # urllib, huggingface_hub and the file system each raise their own
        place = f"the Hugging Face hub and its cache {HF_HUB_CACHE} ({hub})" if hub else url
        address = url or f"https://huggingface.co/{hub}"
        raise CSKTError(
            f"the weights of {name}, tag {tag!r}, could not be fetched from {place} ({type(error).__name__}) "
            f"and are not at {by_hand}; download {address} on a connected machine and put the file there, or pass its "
            "path as pretrained."
        ) from error


def _mini_state(config: dict[str, Any]) -> dict[str, Tensor]:
    """The embedded weights; token rows that are not shipped follow a seeded rule: they carry no meaning."""
    state = {name: t if name == _IDS else t.float() for name, t in load_file(_asset("safetensors")).items()}
    rows, ids = state.pop(_ROWS), state.pop(_IDS)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(config["text_cfg"]["vocab_size"], rows.shape[1], generator=generator) * 0.02
    table[ids.long()] = rows
    return {**state, "token_embedding.weight": table}


def _asset(kind: str) -> Path:
    path = ASSETS / f"{MINI}.{kind}"
    if not path.is_file():
        raise CSKTError(f"{path} of {MINI} is missing; reinstall cskt or make it with: python -m cskt pretrain-mini")
    return path


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry for entry in archive.namelist())


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) from an int or a pair of ints."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        raise CSKTError(f"image_size must be (height, width) in pixels, got {size!r}.")
    return pair
