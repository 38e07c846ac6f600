"""Embed a split, rank it, and read or write the record of a run (the unit of evidence)."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from cskt.config import MINI, CSKTError, TrainConfig
from cskt.data.benchmarks import Split
from cskt.data.pipeline import load_images, normalize
from cskt.metrics import both_directions
from cskt.model.cskt import CSKT, load_model

CONFIG, HISTORY, METRICS = "config.yaml", "history.csv", "metrics.json"
ADAPTER, STATE = "adapter.safetensors", "state.pt"
HISTORY_FIELDS = ("epoch", "lr", "loss", "split", "R@1", "R@5", "R@10", "mAP", "seconds")
PACKAGES = ("cskt", "torch", "torchvision", "open_clip_torch", "lightning-fabric", "kornia", "numpy", "safetensors")


def resolve_device(device: str) -> str:
    """``"auto"`` -> ``"cuda"`` where there is one, else ``"cpu"``; asking for a missing GPU is a :class:`CSKTError`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise CSKTError("device is 'cuda' but torch finds no CUDA GPU here; use device 'cpu' or 'auto'.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def resolve_precision(precision: str, device: str) -> str:
    """``"auto"`` -> ``"bf16"`` where the device computes bf16 natively, else ``"fp32"``.

    Measured on two AMD cores with avx512_bf16: a training step takes 0.75 (width 128) to 0.57 (width 768) of fp32's
    time. Without such instructions bf16 is emulated and slower.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


@dataclass(frozen=True)
class LoadedSplit:
    """A split in memory: ``images`` uint8 (N, 3, H, W), possibly memory-mapped, and ``tokens`` int64 (M, 77)."""

    split: Split
    images: Tensor
    tokens: Tensor


def load_split(model: CSKT, split: Split, fingerprint: str) -> LoadedSplit:
    """Decode (cached by ``fingerprint``) and tokenise ``split`` once, at the image size of ``model``."""
    images = load_images(split, model.image_size, fingerprint)
    return LoadedSplit(split, images, model.tokenize(list(split.captions)))


def _encode(encode: Callable, rows: Tensor, batch_size: int, device: torch.device, precision: str) -> Tensor:
    features = []
    for batch in rows.split(batch_size):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            encoded = encode(batch.to(device))
        # Normalised in fp32 whatever the tower computed in: rankings turn on small differences of cosines.
        features.append(torch.nn.functional.normalize(encoded.float(), dim=-1))
    return torch.cat(features)


@torch.inference_mode()
def embed(model: CSKT, split: Split | LoadedSplit, fingerprint: str = "", precision: str = "auto",
          batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """L2-normalised fp32 features of every image (N, D) and caption (M, D), on the model's device.

    ``fingerprint`` is the data set's (see ``load_dataset``): the cache of decoded images is kept under it.
    """
    loaded = split if isinstance(split, LoadedSplit) else load_split(model, split, fingerprint)
    device = next(model.parameters()).device
    precision = resolve_precision(precision, device.type)
    was_training = model.training
    model.eval()
    try:
        options = (batch_size, device, precision)
        return (_encode(lambda batch: model.encode_image(normalize(batch)), loaded.images, *options),
                _encode(model.encode_text, loaded.tokens, *options))
    finally:
        model.train(was_training)


def evaluate(model: CSKT, split: Split | LoadedSplit, fingerprint: str = "", precision: str = "auto",
             batch_size: int = 256) -> dict[str, dict[str, float]]:
    """Rank ``split`` with ``model``: R@1/5/10, mAP and mINP in percent, ``text_to_image`` and ``image_to_text``."""
    image_features, text_features = embed(model, split, fingerprint, precision, batch_size)
    records = split.split if isinstance(split, LoadedSplit) else split
    return both_directions(text_features @ image_features.T, records.caption_identities, records.image_identities)


def build_model(config: TrainConfig) -> CSKT:
    """The model of a run before training, on the CPU: new (and random backbone) weights follow from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return load_model(config.backbone, pretrained=config.pretrained, image_size=config.image_size,
                          config=config.cskt)


def weights_fingerprint(config: TrainConfig) -> str:
    """What the frozen weights are: the sha256 of their file (16 hex digits), else the tag, else ``"random"``."""
    source = Path(__file__).parent / "assets" / "cskt-mini.safetensors" if config.backbone == MINI else None
    if config.pretrained is not None:
        source = Path(config.pretrained)
    if source is not None and source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return config.pretrained or "random"


def environment(device: str) -> dict[str, Any]:
    """Where and with what a run was made: ``commit``, ``dirty``, ``versions``, ``hardware`` (None: not known)."""
    try:
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        commit = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
                                timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "commit": commit and commit.removesuffix("-dirty"),
        "dirty": commit and commit.endswith("-dirty"),
        "versions": versions,
        "hardware": {
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        },
    }


def write_atomically(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write ``path`` so that a reader sees the old file or the new one, never a part of it.

    ``content`` may be a function that writes the path it is given (for what should not pass through memory twice).
    """
    temporary = path.with_name(f".{path.name}.tmp")
    if callable(content):
        content(temporary)
    else:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """``values`` as indented json, atomically."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """``history`` as csv with the columns :data:`HISTORY_FIELDS`, atomically."""
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY_FIELDS)
            writer.writeheader()
            writer.writerows(history)
    write_atomically(path, write)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Inverse of :func:`write_history`: ``epoch`` int, ``split`` str, everything else float."""
    kinds = {"epoch": int, "split": str}
    with path.open(newline="") as file:
        return [{name: kinds.get(name, float)(value) for name, value in row.items()} for row in csv.DictReader(file)]


def read_config(path: Path) -> TrainConfig:
    """The :class:`TrainConfig` in a yaml file; an unreadable or malformed one is a :class:`CSKTError`."""
    try:
        return TrainConfig.from_dict(read_yaml(path))
    except CSKTError as error:
        raise error if str(path) in str(error) else CSKTError(f"{path}: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a yaml file; anything else is a :class:`CSKTError` that names the file."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise CSKTError(f"{path} cannot be read ({error.strerror}); give the path of a yaml file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise CSKTError(f"{path} is not valid yaml ({reason}); correct it.") from error
    if not isinstance(values, dict):
        raise CSKTError(f"{path} must hold 'field: value' lines; correct it.")
    return values


@dataclass(frozen=True)
class Run:
    """A finished run: what was asked (``config``), what happened (``history``), what came out (``metrics``)."""

    folder: Path
    config: TrainConfig
    history: list[dict[str, Any]]
    metrics: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a finished run; a :class:`CSKTError` where ``folder`` holds none."""
        folder = Path(folder)
        for name in (CONFIG, METRICS, HISTORY, ADAPTER):
            if not (folder / name).is_file():
                held = "an unfinished run" if (folder / CONFIG).is_file() else "no run"
                raise CSKTError(f"{folder} holds {held} ({name} is missing); train it first with python -m cskt train.")
        try:
            metrics = dict(json.loads((folder / METRICS).read_text()))
            history = read_history(folder / HISTORY)
            missing = {"metrics", "weights_fingerprint"} - set(metrics)
            if missing:
                raise ValueError(f"no {', '.join(sorted(missing))}")
        except (ValueError, TypeError) as error:
            raise CSKTError(f"{folder} holds a damaged {METRICS} or {HISTORY} ({error}); train again with "
                            "overwrite.") from error
        return cls(folder, read_config(folder / CONFIG), history, metrics)

    def load_model(self) -> CSKT:
        """The model at its best epoch, on the CPU, in eval mode.

        The backbone is made again from the configuration; :class:`CSKTError` if its weights are not the run's.
        """
        weights = weights_fingerprint(self.config)
        if weights != self.metrics["weights_fingerprint"]:
            raise CSKTError(f"{self.folder} was trained on backbone weights {self.metrics['weights_fingerprint']} but "
                            f"{self.config.backbone} now has {weights}; restore those weights or train again.")
        model = build_model(self.config)
        model.load_trainable_state(read_adapter(self.folder / ADAPTER))
        return model.eval()


def read_adapter(path: Path) -> dict[str, Tensor]:
    """The trained tensors in a safetensors file, by name."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise CSKTError(f"{path} is not a readable safetensors file ({error}); train the run again.") from error


def comparable(config: TrainConfig) -> dict[str, Any]:
    """What decides a run's result: the configuration without the place it is written to."""
    return dataclasses.replace(config, output=None).to_dict()
