"""Configuration as plain data: the method (:class:`CSKTConfig`) and the run (:class:`TrainConfig`).

The dataclass defaults are the paper's setting, as released; :meth:`TrainConfig.mini` is the
embedded default that runs on two CPU cores without downloads.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cskt.checks import (
    LARGEST_SEED,
    LONGEST_SIDE,
    check_choice,
    check_field_names,
    check_integer,
    check_name,
    check_optional_integer,
    check_path,
    check_positive,
    check_probability,
    check_switch,
    is_image_size,
    is_integer,
    is_number,
    require,
)
from cskt.errors import ConfigurationError

REAL_DATASETS = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")
SYNTHETIC_DATASETS = ("SynthPEDES-A", "SynthPEDES-B", "SynthPEDES-C")
DATASETS = REAL_DATASETS + SYNTHETIC_DATASETS
# Settings of a run that say where and how it is carried out, not what it is.
EXECUTION = (
    "output",
    "data_root",
    "devices",
    "nodes",
    "strategy",
    "micro_batch_size",
    "checkpoint_every",
    "tensorboard",
)
SELECTIONS = ("val", "test", "last")  # the rules by which an epoch may be chosen
ON_ERROR = ("raise", "skip")  # what an image that cannot be read does
MINI = "cskt-mini"
# How a record's ``backbone_origin`` names a backbone that was trained on people already.
DOMAIN_PRETRAINED = "IRRA family"


def cache_dir() -> Path:
    """Where rendered data and decoded images are kept: ``$CSKT_CACHE``, else ``~/.cache/cskt``."""
    return Path(os.environ.get("CSKT_CACHE") or Path.home() / ".cache" / "cskt")


def check_dataset_name(value: Any) -> None:
    """Refuse what cannot name a data set: one of :data:`DATASETS`, or data of one's own under any
    printable name that could not be taken for one of them."""
    is_name = isinstance(value, str) and value.isprintable() and 1 <= len(value.strip()) <= 100
    if not is_name or any(character in value for character in ",<>"):
        raise ConfigurationError(
            f"dataset must be a name of 1 to 100 printable characters without , < and >, got "
            f"{value!r:.120}."
        )
    if value in DATASETS:
        return
    letters = _letters_of(value)
    for published in DATASETS:
        if letters == _letters_of(published):
            raise ConfigurationError(
                f"dataset {value!r} reads like {published}; write it so, or choose another name."
            )
    if letters.startswith("synthpedes"):
        raise ConfigurationError(
            f"dataset {value!r} is not drawn here; take one of {', '.join(SYNTHETIC_DATASETS)}, or "
            "choose another name."
        )


def _letters_of(name: str) -> str:
    """Letters and digits alone, in one case."""
    return re.sub(r"[\W_]", "", name).casefold()


@dataclass(frozen=True)
class CSKTConfig:
    """The method (Sections 2.2 and 2.3 of the paper). Defaults are the paper's.

    ``prompt_depth`` None means every block of the shallower tower. With one prompt direction off,
    the prompts that fed it are gone from both towers; with both off there are no prompts.
    ``adapter_init="zero"`` starts every adapter's up-projection at zero, so that training starts
    from the backbone's own features. ``lora``, not of the paper, adds a trained update of rank
    ``lora_rank`` to every attention's query, key and value maps.
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
        length_holds = is_integer(self.prompt_length, 1) and self.prompt_length <= 32
        require(length_holds, "prompt_length", "an integer from 1 to 32", self.prompt_length)
        check_integer("reduction", self.reduction, low=1)
        check_integer("lora_rank", self.lora_rank, low=1)
        depth_holds = self.prompt_depth is None or is_integer(self.prompt_depth, 0)
        depth_allowed = "None (every block) or an integer >= 0"
        require(depth_holds, "prompt_depth", depth_allowed, self.prompt_depth)
        check_switch("text_to_vision", self.text_to_vision)
        check_switch("vision_to_text", self.vision_to_text)
        check_switch("vision_adapter", self.vision_adapter)
        check_switch("text_adapter", self.text_adapter)
        check_switch("lora", self.lora)
        check_switch("train_backbone", self.train_backbone)
        vision_holds = is_number(self.vision_scale)
        require(vision_holds, "vision_scale", "a finite number", self.vision_scale)
        text_holds = is_number(self.text_scale)
        require(text_holds, "text_scale", "a finite number", self.text_scale)
        check_choice("prompt_init", self.prompt_init, ("random", "a photo of a"))
        check_choice("adapter_init", self.adapter_init, ("normal", "zero"))

    @property
    def prompts_per_tower(self) -> int:
        """P: rows inserted in each tower (2n with both directions, n with one, 0 with none)."""
        if self.prompt_depth == 0:
            return 0
        directions = int(self.text_to_vision) + int(self.vision_to_text)
        return self.prompt_length * directions

    @classmethod
    def mini(cls, **overrides: Any) -> CSKTConfig:
        """The setting chosen on val for the embedded cskt-mini backbone."""
        chosen: dict[str, Any] = {"vision_scale": 1.0, "text_scale": 1.0, "adapter_init": "zero"}
        return cls(**(chosen | overrides))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CSKTConfig:
        """Inverse of ``dataclasses.asdict``; an unknown field is a :class:`ConfigurationError`."""
        check_field_names(cls, values)
        return cls(**values)

    def for_method(self, method: str) -> CSKTConfig:
        """This configuration with the switches of one comparison method (see :data:`METHODS`)."""
        if method not in METHODS:
            names = ", ".join(METHODS)
            raise ConfigurationError(f"method {method!r} is unknown; choose one of {names}.")
        switches: dict[str, Any] = METHODS[method]
        return dataclasses.replace(self, **switches)


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
    """One training run. Defaults are the paper's, as released; learning rates are per parameter
    group (see training).

    ``selection`` says which epoch's model is kept: the best on ``"val"`` (default), the best on
    ``"test"``, which reproduces the release, or the ``"last"``. ``train_fraction`` is the share of
    the training identities that is used (see ``data.datasets.subset``). ``noise`` is the share of
    the training captions that are moved to images of other people by ``seed``, ``noise_index`` a
    ``.npy`` file that says instead which caption goes where (see ``data.noise``). ``erasing`` is
    the probability of random erasing, ``pad`` the border of the random crop in pixels.
    ``checkpointing`` computes each layer twice to keep little of it: for GPUs of little memory.
    ``on_error`` says what an image that cannot be read does: it ends the run ("raise"), or is left
    out and listed in the record ("skip"). ``compile`` hands the vision layers to torch.compile:
    minutes at the start, for long runs on a GPU (on a CPU it does not pay).

    How the run is carried out changes neither its name nor, but for rounding, its result:
    ``batch_size`` is that of the whole step, of which each of ``devices`` on each of ``nodes``
    encodes a share, ``micro_batch_size`` pairs at a time (None: all at once); ``strategy`` is
    Fabric's ("auto": "ddp" for several devices). ``checkpoint_every`` stores the run after so many
    steps, besides after every epoch. ``tensorboard`` writes the history for TensorBoard too.
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
    noise: float = 0.0
    noise_index: str | None = None
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
    on_error: str = "raise"
    precision: str = "auto"
    checkpointing: bool = False
    compile: bool = False
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    micro_batch_size: int | None = None
    checkpoint_every: int | None = None
    tensorboard: bool = False
    output: str | None = None

    def __post_init__(self) -> None:
        check_dataset_name(self.dataset)
        seed_holds = is_integer(self.seed, 0) and self.seed <= LARGEST_SEED
        require(seed_holds, "seed", f"an integer from 0 to {LARGEST_SEED}", self.seed)
        check_name("backbone", self.backbone)
        check_name("method", self.method)
        check_path("data_root", self.data_root)
        check_path("pretrained", self.pretrained)
        check_path("output", self.output)
        check_integer("epochs", self.epochs, low=1)
        check_integer("batch_size", self.batch_size, low=2)
        size_holds = is_image_size(self.image_size)
        size_allowed = f"(height, width) in pixels, at most {LONGEST_SIDE} each"
        require(size_holds, "image_size", size_allowed, self.image_size)
        check_choice("optimizer", self.optimizer, ("adam", "adamw"))
        check_integer("warmup_epochs", self.warmup_epochs, low=0)
        check_integer("pad", self.pad, low=0)
        share_holds = is_number(self.train_fraction) and 0 < self.train_fraction <= 1
        require(share_holds, "train_fraction", "a share > 0 and <= 1", self.train_fraction)
        check_probability("noise", self.noise)
        if self.noise_index is not None:
            index_holds = isinstance(self.noise_index, str) and self.noise == 0
            allowed = "the path of a .npy file while noise is 0"
            require(index_holds, "noise_index", allowed, self.noise_index)
        decay_holds = is_number(self.weight_decay) and self.weight_decay >= 0
        require(decay_holds, "weight_decay", "a number >= 0", self.weight_decay)
        check_choice("selection", self.selection, SELECTIONS)
        check_choice("on_error", self.on_error, ON_ERROR)
        check_positive("learning_rate", self.learning_rate)
        check_positive("bias_factor", self.bias_factor)
        check_positive("adam_eps", self.adam_eps)
        check_positive("temperature", self.temperature)
        check_probability("flip", self.flip)
        check_probability("erasing", self.erasing)
        check_switch("checkpointing", self.checkpointing)
        check_switch("compile", self.compile)
        check_integer("devices", self.devices, low=1)
        check_integer("nodes", self.nodes, low=1)
        require(isinstance(self.strategy, str), "strategy", "a name of Fabric's", self.strategy)
        check_optional_integer("micro_batch_size", self.micro_batch_size)
        check_optional_integer("checkpoint_every", self.checkpoint_every)
        check_switch("tensorboard", self.tensorboard)
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        check_choice("device", self.device, ("auto", "cpu", "cuda"))
        require(isinstance(self.cskt, CSKTConfig), "cskt", "a CSKTConfig", self.cskt)
        # A frozen dataclass sets its own fields in this way only.
        height, width = self.image_size
        object.__setattr__(self, "image_size", (height, width))
        object.__setattr__(self, "cskt", self.cskt.for_method(self.method))

    @classmethod
    def paper(
        cls, dataset: str = "CUHK-PEDES", data_root: str | None = None, **overrides: Any
    ) -> TrainConfig:
        """The paper's setting as released: CLIP ViT-B/16 at 384x128, 60 epochs of Adam. Full
        fine-tuning, which the release does not have, takes IRRA's learning rate."""
        values: dict[str, Any] = {"dataset": dataset, "data_root": data_root}
        if overrides.get("method") == "full":
            values["learning_rate"] = 1e-5
        return cls(**(values | overrides))

    @classmethod
    def mini(cls, dataset: str = "SynthPEDES-A", **overrides: Any) -> TrainConfig:
        """The embedded default: cskt-mini on a SynthPEDES domain, minutes on two CPU cores; chosen
        on val."""
        values: dict[str, Any] = {
            "dataset": dataset,
            "backbone": MINI,
            "pretrained": None,
            "image_size": (128, 64),
            "cskt": CSKTConfig.mini(),
            "epochs": 6,
            "batch_size": 64,
            "adam_eps": 1e-8,
            "warmup_epochs": 1,
            "pad": 4,
            "erasing": 0.2,
        }
        method = overrides.get("method", cls.method)
        if method in MINI_LEARNING_RATES:  # any other is refused below, by name
            values["learning_rate"] = MINI_LEARNING_RATES[method]
        return cls(**(values | overrides))

    @classmethod
    def for_backbone(cls, backbone: str = MINI, **overrides: Any) -> TrainConfig:
        """The embedded default for ``cskt-mini``, the paper's setting for any other backbone; an
        override that is None means default."""
        given = {name: value for name, value in overrides.items() if value is not None}
        if backbone == MINI:
            return cls.mini(**given)
        return cls.paper(backbone=backbone, **given)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Inverse of :meth:`to_dict`; an unknown field is a :class:`ConfigurationError`."""
        check_field_names(cls, values)
        values = dict(values)
        method_settings = values.get("cskt", {})
        if not isinstance(method_settings, dict):
            raise ConfigurationError(
                f"cskt must be a mapping of method settings, got {method_settings!r}; "
                "correct the configuration."
            )
        values["cskt"] = CSKTConfig.from_dict(method_settings)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and scalars, fit for yaml and json."""
        values = dataclasses.asdict(self)
        values["image_size"] = list(self.image_size)
        return values
