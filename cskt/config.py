"""Configuration as plain data: the method (:class:`CSKTConfig`) and the run (:class:`TrainConfig`).

The dataclass defaults are the paper's setting, as released; :meth:`TrainConfig.mini` is the embedded default that
runs on two CPU cores without downloads.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATASETS = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid", "SynthPEDES-A", "SynthPEDES-B", "SynthPEDES-C")
MINI = "cskt-mini"


class CSKTError(ValueError):
    """Bad input from the user: one sentence that says what is wrong, where, and what to do."""


def cache_dir() -> Path:
    """Where rendered data and decoded images are kept: ``$CSKT_CACHE``, else ``~/.cache/cskt``."""
    return Path(os.environ.get("CSKT_CACHE") or Path.home() / ".cache" / "cskt")


Rule = tuple[Callable[[Any], bool], str]  # what holds for a field's value, and how to say it


def _integer(low: int, high: int | None = None) -> Rule:
    span = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    return lambda v: type(v) is int and v >= low and (high is None or v <= high), span


def _number(holds: Callable[[float], bool], span: str) -> Rule:
    return lambda v: type(v) in (int, float) and math.isfinite(v) and holds(v), span


def _choice(*options: str) -> Rule:
    return lambda v: v in options, " or ".join([", ".join(map(repr, options[:-1])), repr(options[-1])])


_SWITCH: Rule = (lambda v: type(v) is bool, "True or False")
_POSITIVE = _number(lambda v: v > 0, "a number > 0")
_PROBABILITY = _number(lambda v: 0 <= v <= 1, "a probability from 0 to 1")


def _check(config: Any, rules: dict[str, Rule]) -> None:
    for name, (holds, expected) in rules.items():
        if not holds(getattr(config, name)):
            raise CSKTError(f"{name} must be {expected}, got {getattr(config, name)!r}.")


def _from_dict(cls, values: dict[str, Any]):
    surplus = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
    if surplus:
        raise CSKTError(f"{cls.__name__} has no field {', '.join(surplus)}; remove it from the configuration.")
    return cls(**values)


@dataclass(frozen=True)
class CSKTConfig:
    """The method (Sections 2.2 and 2.3 of the paper). Defaults are the paper's.

    ``prompt_depth`` None means every block of the shallower tower. With one prompt direction off, the prompts that
    fed it are gone from both towers; with both off there are no prompts. ``adapter_init="zero"`` starts every
    adapter's up-projection at zero, so that training starts from the backbone's own features. ``lora``, not of the
    paper, adds a trained update of rank ``lora_rank`` to every attention's query, key and value maps.
    """

    prompt_length: int = 4
    prompt_depth: int | None = None
    text_to_vision: bool = True
    vision_to_text: bool = True
    vision_adapter: bool = True
    text_adapter: bool = True
    reduction: int = 8
    vision_scale: float = 0.1
    text_scale: float = 4.0
    prompt_init: str = "random"
    adapter_init: str = "normal"
    lora: bool = False
    lora_rank: int = 8
    train_backbone: bool = False

    def __post_init__(self) -> None:
        depth = _integer(0)[0]
        _check(self, {
            "prompt_length": _integer(1, 32), "reduction": _integer(1), "lora_rank": _integer(1),
            "prompt_depth": (lambda v: v is None or depth(v), "None (every block) or an integer >= 0"),
            **dict.fromkeys(("text_to_vision", "vision_to_text", "vision_adapter", "text_adapter", "lora",
                             "train_backbone"), _SWITCH),
            **dict.fromkeys(("vision_scale", "text_scale"), _number(lambda v: True, "a finite number")),
            "prompt_init": _choice("random", "a photo of a"), "adapter_init": _choice("normal", "zero"),
        })

    @property
    def prompts_per_tower(self) -> int:
        """P: rows inserted in each tower (2n with both directions, n with one, 0 with none)."""
        if self.prompt_depth == 0:
            return 0
        return self.prompt_length * (int(self.text_to_vision) + int(self.vision_to_text))

    @classmethod
    def mini(cls, **overrides: Any) -> CSKTConfig:
        """The setting chosen on val for the embedded cskt-mini backbone."""
        return cls(**{"vision_scale": 1.0, "text_scale": 1.0, "adapter_init": "zero", **overrides})

    def for_method(self, method: str) -> CSKTConfig:
        """This configuration with the switches of one comparison method (see :data:`METHODS`)."""
        if method not in METHODS:
            raise CSKTError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}.")
        return dataclasses.replace(self, **METHODS[method])


_NO_PROMPTS = dict(text_to_vision=False, vision_to_text=False, lora=False)
_NO_ADAPTERS = dict(vision_adapter=False, text_adapter=False, lora=False)
METHODS: dict[str, dict[str, bool]] = {
    "zero-shot": {**_NO_PROMPTS, **_NO_ADAPTERS},
    "full": {**_NO_PROMPTS, **_NO_ADAPTERS, "train_backbone": True},
    "prompts-text-to-image": {"vision_to_text": False, **_NO_ADAPTERS},
    "prompts-image-to-text": {"text_to_vision": False, **_NO_ADAPTERS},
    "bpt": _NO_ADAPTERS,
    "adapter-vision": {**_NO_PROMPTS, "text_adapter": False},
    "adapter-text": {**_NO_PROMPTS, "vision_adapter": False},
    "dat": _NO_PROMPTS,
    "lora": {**_NO_PROMPTS, **_NO_ADAPTERS, "lora": True},
    "cskt": {},
}
# Of the embedded default: the best on val of the committed grid "learning rate", method by method.
MINI_LEARNING_RATES: dict[str, float] = {
    "zero-shot": 1e-2,  # trains nothing
    "full": 3e-4,
    "prompts-text-to-image": 1e-1,
    "prompts-image-to-text": 3e-1,
    "bpt": 3e-2,
    "adapter-vision": 1e-2,
    "adapter-text": 3e-2,
    "dat": 3e-2,
    "lora": 3e-3,
    "cskt": 1e-2,
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Defaults are the paper's, as released; learning rates are per parameter group (see training).

    ``selection`` says which epoch's model is kept: the best on ``"val"`` (default), the best on ``"test"``, which
    reproduces the release, or the ``"last"``.
    ``train_fraction`` is the share of the training identities that is used (see ``data.benchmarks.subset``).
    ``erasing`` is the probability of random erasing, ``pad`` the border of the random crop in pixels.
    ``checkpointing`` computes each layer twice to keep little of it: for GPUs of little memory. ``compile`` hands the
    vision layers to torch.compile: minutes at the start, for long runs on a GPU (on a CPU it does not pay).
    """

    dataset: str = "CUHK-PEDES"
    data_root: str | None = None
    backbone: str = "ViT-B-16-quickgelu"
    pretrained: str | None = "openai"
    image_size: tuple[int, int] = (384, 128)
    method: str = "cskt"
    cskt: CSKTConfig = field(default_factory=CSKTConfig)
    seed: int = 0
    train_fraction: float = 1.0
    epochs: int = 60
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 3e-4
    bias_factor: float = 2.0
    weight_decay: float = 4e-5
    adam_eps: float = 1e-3
    warmup_epochs: int = 5
    temperature: float = 0.02
    flip: float = 0.5
    pad: int = 10
    erasing: float = 0.5
    selection: str = "val"
    precision: str = "auto"
    checkpointing: bool = False
    compile: bool = False
    device: str = "auto"
    output: str | None = None

    def __post_init__(self) -> None:
        size = _integer(1)[0]
        _check(self, {
            "dataset": _choice(*DATASETS), "seed": _integer(0), "epochs": _integer(1), "batch_size": _integer(2),
            "image_size": (lambda v: isinstance(v, (tuple, list)) and len(v) == 2 and all(map(size, v)),
                           "(height, width) in pixels"),
            "optimizer": _choice("adam", "adamw"), "warmup_epochs": _integer(0), "pad": _integer(0),
            "train_fraction": _number(lambda v: 0 < v <= 1, "a share > 0 and <= 1"),
            "weight_decay": _number(lambda v: v >= 0, "a number >= 0"),
            "selection": _choice("val", "test", "last"),
            **dict.fromkeys(("learning_rate", "bias_factor", "adam_eps", "temperature"), _POSITIVE),
            **dict.fromkeys(("flip", "erasing"), _PROBABILITY),
            **dict.fromkeys(("checkpointing", "compile"), _SWITCH),
            "precision": _choice("auto", "fp32", "bf16"), "device": _choice("auto", "cpu", "cuda"),
        })
        method = _from_dict(CSKTConfig, self.cskt) if isinstance(self.cskt, dict) else self.cskt
        object.__setattr__(self, "image_size", tuple(self.image_size))
        object.__setattr__(self, "cskt", method.for_method(self.method))

    @classmethod
    def paper(cls, dataset: str = "CUHK-PEDES", data_root: str | None = None, **overrides: Any) -> TrainConfig:
        """The paper's setting as released: CLIP ViT-B/16 at 384x128, 60 epochs of Adam. Full fine-tuning, which the
        release does not have, takes IRRA's learning rate."""
        rate = {"learning_rate": 1e-5} if overrides.get("method") == "full" else {}
        return cls(**{"dataset": dataset, "data_root": data_root, **rate, **overrides})

    @classmethod
    def mini(cls, dataset: str = "SynthPEDES-A", **overrides: Any) -> TrainConfig:
        """The embedded default: cskt-mini on a SynthPEDES domain, minutes on two CPU cores; chosen on val."""
        values: dict[str, Any] = dict(
            dataset=dataset, backbone=MINI, pretrained=None, image_size=(128, 64), cskt=CSKTConfig.mini(), epochs=6,
            batch_size=64, adam_eps=1e-8, warmup_epochs=1, pad=4, erasing=0.2,
        )
        method = overrides.get("method", cls.method)
        if method in MINI_LEARNING_RATES:  # any other is refused below, by name
            values["learning_rate"] = MINI_LEARNING_RATES[method]
        return cls(**{**values, **overrides})

    @classmethod
    def for_backbone(cls, backbone: str = MINI, **overrides: Any) -> TrainConfig:
        """The embedded default for ``cskt-mini``, the paper's setting for any other backbone; None means default."""
        overrides = {name: value for name, value in overrides.items() if value is not None}
        return cls.mini(**overrides) if backbone == MINI else cls.paper(backbone=backbone, **overrides)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Inverse of :meth:`to_dict`; an unknown field is a :class:`CSKTError`."""
        return _from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and scalars, fit for yaml and json."""
        values = dataclasses.asdict(self)
        return {**values, "image_size": list(self.image_size)}
