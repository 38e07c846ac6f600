"""A model on disk: the trained weights and what is needed to build the rest again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cskt import files
from cskt.config import CSKTConfig
from cskt.errors import CSKTError, ModelError
from cskt.files import write_atomically, write_json
from cskt.model import backbone

if TYPE_CHECKING:
    from cskt.model.cskt import CSKT

WEIGHTS_FILE = "adapter.safetensors"
CONFIG_FILE = "config.json"


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What :func:`save_pretrained` wrote: the configuration, how the backbone was made
    (``source``), for which images, its ``fingerprint``, and the trained ``weights``."""

    folder: Path
    config: CSKTConfig
    source: dict[str, Any]
    image_size: tuple[int, int]
    fingerprint: str
    weights: dict[str, Tensor]


def fingerprint(model: CSKT) -> str:
    """16 hex digits over configuration, image size, backbone and trained values."""
    config = dataclasses.asdict(model.config)
    facts = [config, model.image_size, backbone.fingerprint(model.backbone)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, tensor in sorted(model.trainable_state().items()):
        values = tensor.to("cpu", torch.float32).contiguous()
        digest.update(name.encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]


def save_pretrained(model: CSKT, path: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
    """See :meth:`cskt.CSKT.save_pretrained`."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, tensor in model.trainable_state().items():
        weights[name] = tensor.to("cpu", dtype or tensor.dtype).contiguous()
    source = {
        **model.source,
        "image_size": model.image_size,
        "fingerprint": model.backbone_fingerprint(),
    }
    if "pretrained" in source:
        source["pretrained"] = files.public_name(source["pretrained"])
    config = {"cskt": dataclasses.asdict(model.config), "backbone": source}
    with files.full_disk_named(folder, "", "save the model again"):
        write_atomically(folder / WEIGHTS_FILE, lambda temporary: save_file(weights, temporary))
        write_json(folder / CONFIG_FILE, config)


def read_pretrained(path: str | os.PathLike) -> SavedModel:
    """What lies in the folder ``path``; :class:`ModelError` for missing and damaged files."""
    folder = Path(path)
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        if not (folder / file).is_file():
            raise ModelError(
                f"{folder / file} does not exist; give the folder that save_pretrained wrote."
            )
    try:
        weights = load_file(folder / WEIGHTS_FILE)
        content = json.loads((folder / CONFIG_FILE).read_text())
        config = CSKTConfig(**content["cskt"])
        source = dict(content["backbone"])
        height, width = source.pop("image_size")
        return SavedModel(
            folder=folder,
            config=config,
            source=source,
            image_size=(height, width),
            fingerprint=source.pop("fingerprint"),
            weights=weights,
        )
    except SafetensorError as error:
        raise ModelError(
            f"{folder / WEIGHTS_FILE} is damaged ({error}); save the model again."
        ) from error
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        raise ModelError(
            f"the model in {folder} cannot be read ({error}); save it again."
        ) from error


def backbone_of(
    saved: SavedModel, pretrained: str | os.PathLike | None = None
) -> tuple[str, str | os.PathLike | None]:
    """Name and weights of a saved model's backbone: ``pretrained``, or what it was made with; a
    file that was named there lies in its folder, or where we are. :class:`ModelError` if there is
    none."""
    if "name" not in saved.source:
        raise ModelError(
            f"the model in {saved.folder} was saved over a backbone of unknown origin; pass it as "
            "backbone."
        )
    name = saved.source["name"]
    if pretrained:
        return name, pretrained
    pretrained = saved.source.get("pretrained")
    if pretrained is not None and (saved.folder / pretrained).is_file():
        return name, saved.folder / pretrained
    try:
        backbone.weights_source(name, pretrained)
    except CSKTError as error:
        raise ModelError(
            f"the model in {saved.folder} needs the backbone weights {pretrained!r}, which are not "
            f"there; give their file as pretrained. ({error})"
        ) from error
    return name, pretrained


def check_backbone(model: CSKT, saved: SavedModel) -> None:
    """:class:`ModelError` unless ``model`` has the backbone that ``saved`` was trained over."""
    own = model.backbone_fingerprint()
    if own != saved.fingerprint or model.image_size != saved.image_size:
        raise ModelError(
            f"the model in {saved.folder} was trained over another backbone (fingerprint "
            f"{saved.fingerprint}, images {saved.image_size}; got {own}, {model.image_size}); load "
            f"it over {saved.source or 'the same weights'}."
        )
