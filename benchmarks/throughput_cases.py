"""What benchmarks/throughput.py times: training steps, what feeds them, encoding and ranking."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.costs import OURS
from benchmarks.plain import plain_encode_image, plain_encode_text
from cskt import CSKT, load_model
from cskt.config import METHODS, TrainConfig
from cskt.data.augment import Augment
from cskt.data.images import decode_image
from cskt.losses import sdm_loss
from cskt.metrics import retrieval_metrics
from cskt.model.backbone import RANDOM
from cskt.model.towers import run_layer
from cskt.optimizer import make_optimizer

# Tokens of captions, spread as captions are; their mean is 26.
LENGTHS = (23, 15, 35, 19, 27, 60, 17, 25, 20, 32, 12, 24, 39, 18, 29, 21)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDE = {"cpu": 2048, "cuda": 8192}  # rows of the square matrices
COPIED = 2**28  # bytes copied, beyond any cache
DECODED = 32
BATCHES = (1, 2, 4, 8, 16, 32)
WIDTHS = (8, 16, 24, 36, 52, 77)  # tokens a caption
GALLERIES = (512, 1024, 2048, 4096, 8192)
# (what, method, precision), in a series also the size -> one call
Case = tuple[Any, ...]
Cases = dict[Case, Callable[[], Any]]
Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Setup:
    """What the cases of a run share; every process makes the same models and inputs from it."""

    backbone: str
    image_size: tuple[int, int]
    batch: int
    device: str
    seed: int

    def config(self, method: str) -> TrainConfig:
        known = method if method in METHODS else "cskt"
        return TrainConfig.for_backbone(self.backbone, method=known)

    def model(self, method: str) -> CSKT:
        torch.manual_seed(self.seed)
        config = self.config(method).cskt
        model = load_model(self.backbone, RANDOM, self.image_size, config)
        return model.to(self.device).train()

    def images(self, batch: int) -> Tensor:
        return torch.randn(batch, 3, *self.image_size).to(self.device)

    def lengths(self) -> np.ndarray:
        """Tokens of each caption of a batch, start and end included."""
        return np.resize(LENGTHS, self.batch)

    def token_ids(self, model: CSKT, lengths: Sequence[int] | np.ndarray, method: str) -> Tensor:
        """Captions of so many tokens; for CSKT on the CPU, from where training and evaluation pass
        them too."""
        start = int(model.tokenize("a")[0, 0])
        random = np.random.default_rng(self.seed)
        ids = np.zeros((len(lengths), model.backbone.context_length), dtype=np.int64)
        for row, length in zip(ids, lengths, strict=True):
            words = random.integers(1, start, length - 2)
            row[:length] = [start, *words, model.end_token]
        return torch.from_numpy(ids).to("cpu" if method in OURS else self.device)


@dataclass(frozen=True)
class Encoders:
    """How a method encodes images and captions."""

    image: Encoder
    text: Encoder


def encoders(model: CSKT, method: str) -> Encoders:
    """``full`` is open_clip's own way, ``plain`` the naive one."""
    if method == "plain":
        image = functools.partial(plain_encode_image, model)
        text = functools.partial(plain_encode_text, model)
        return Encoders(image, text)
    if method == "full":
        return Encoders(model.backbone.encode_image, model.backbone.encode_text)
    return Encoders(model.encode_image, model.encode_text)


def trainee(setup: Setup, method: str, precision: str) -> tuple[CSKT, torch.optim.Optimizer]:
    """A model and its optimiser, made ready as :mod:`cskt.training` does; frozen matrices of plain
    in bf16 too, since the release runs in half precision."""
    model = setup.model(method)
    if precision == "bf16":
        model.cast_frozen(torch.bfloat16)
    if method == "compiled":
        model.steps["vision"] = torch.compile(run_layer, dynamic=False)
    return model, make_optimizer(model, setup.config(method))[0]


def training_step(
    setup: Setup, model: CSKT, optimizer: torch.optim.Optimizer, method: str, precision: str
) -> Callable[..., None]:
    """A function that makes one step, forward, backward and optimiser, on images of its own or on
    those it is given."""
    own_images = setup.images(setup.batch)
    ids = setup.token_ids(model, setup.lengths(), method)
    identities = torch.arange(setup.batch, device=setup.device) // 2
    encode = encoders(model, method)

    def step(images: Tensor = own_images) -> None:
        with torch.autocast(setup.device, torch.bfloat16, enabled=precision == "bf16"):
            image_features = encode.image(images)
            text_features = encode.text(ids)
        loss = sdm_loss(image_features.float(), text_features.float(), identities)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def extra_memory(setup: Setup, method: str, precision: str) -> float | None:
    """MB by which one step's peak exceeds model and inputs; for a process of its own. None where it
    cannot be told."""
    model, optimizer = trainee(setup, method, precision)
    step = training_step(setup, model, optimizer, method, precision)
    if setup.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if not Path("/proc/self/clear_refs").exists():
        return None
    # What building the model left free must not hide the step's needs.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    resident = _process_memory("VmRSS")
    step()
    return _process_memory("VmHWM") - resident


def _process_memory(field: str) -> float:
    """MB of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024e-6 * int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {field}")


def loader(setup: Setup, folder: Path) -> Callable[[], Tensor]:
    """A function that loads one augmented batch from a memory-mapped file in ``folder``."""
    random = np.random.default_rng(setup.seed)
    config = setup.config("cskt")
    shape = (8 * setup.batch, 3, *setup.image_size)
    np.save(folder / "images.npy", random.integers(256, size=shape, dtype=np.uint8))
    images = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c"))
    augment = Augment(setup.image_size, flip=config.flip, pad=config.pad, erasing=config.erasing)
    augment.to(setup.device)

    def load() -> Tensor:
        chosen = torch.randint(len(images), (setup.batch,))
        return augment(images[chosen].to(setup.device))

    return load


def decoder(setup: Setup, folder: Path) -> Callable[[], None]:
    """A function that decodes JPEG files, written into ``folder``, on all cores."""
    random = np.random.default_rng(setup.seed)
    height, width = setup.image_size
    files = [folder / f"{i}.jpg" for i in range(DECODED)]
    for file in files:  # smooth, as photographs are
        colours = Image.fromarray(random.integers(256, size=(12, 4, 3), dtype=np.uint8))
        colours.resize((width, height), Image.Resampling.BICUBIC).save(file)
    read = functools.partial(decode_image, image_size=setup.image_size)

    def decode() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(read, files))

    return decode


def training_cases(setup: Setup, steps: Sequence[tuple[str, str]], folder: Path) -> Cases:
    """Training steps, what feeds them, and what the machine can do at best (a matrix product, a
    copy)."""
    cases: Cases = {}
    full = trainee(setup, "full", "fp32")  # the largest, and the same in both precisions
    for method, precision in steps:
        model, optimizer = full if method == "full" else trainee(setup, method, precision)
        step = training_step(setup, model, optimizer, method, precision)
        cases["training step", method, precision] = step
    load = loader(setup, folder)
    cases["decode", "cskt", "uint8"] = decoder(setup, folder)
    cases["loader", "cskt", "fp32"] = load
    source = torch.randn(COPIED // 4, device=setup.device)
    cases["copy", "", "fp32"] = functools.partial(torch.empty_like(source).copy_, source)
    for precision in dict.fromkeys(precision for _, precision in steps):
        step = cases["training step", "cskt", precision]
        cases["step with loader", "cskt", precision] = _step_with_loader(step, load)
        cases["matmul", "", precision] = _matrix_product(setup, precision)
    return cases


def _step_with_loader(step: Callable[..., None], load: Callable[[], Tensor]) -> Callable[[], None]:
    return lambda: step(load())


def _matrix_product(setup: Setup, precision: str) -> Callable[[], Tensor]:
    side = SIDE[setup.device]
    matrices = torch.randn(3, side, side, device=setup.device).to(DTYPES[precision])
    return functools.partial(torch.mm, matrices[0], matrices[1], out=matrices[2])


def encoding_cases(setup: Setup, precisions: Sequence[str]) -> Cases:
    """Encoding one batch; in the last precision also over batch sizes and caption lengths; ranking
    over galleries."""
    model = setup.model("cskt")
    cases: Cases = {}
    for precision in precisions:
        # Each at its best in bf16: CSKT fused, open_clip with its weights in bf16, as its own
        # loader offers.
        dtype = DTYPES[precision]
        ours = copy.deepcopy(model).fuse(dtype)
        theirs = copy.deepcopy(model.backbone).eval().to(dtype)
        in_series = precision == precisions[-1]
        for method, owner in (("cskt", ours), ("open_clip", theirs)):
            taken = torch.float32 if method == "cskt" else dtype
            encode_image = torch.inference_mode()(owner.encode_image)
            encode_text = torch.inference_mode()(owner.encode_text)

            def image_case(batch: int, encode=encode_image, dtype=taken) -> Callable[[], Tensor]:
                return functools.partial(encode, setup.images(batch).to(dtype))

            def text_case(
                lengths: Sequence[int] | np.ndarray, encode=encode_text, method=method
            ) -> Callable[[], Tensor]:
                return functools.partial(encode, setup.token_ids(model, lengths, method))

            cases["encode_image", method, precision] = image_case(setup.batch)
            cases["one query", method, precision] = text_case([26])
            cases["encode_text", method, precision] = text_case(setup.lengths())
            for size in BATCHES if in_series else ():
                cases["encode_image", method, precision, size] = image_case(size)
            for size in WIDTHS if in_series else ():
                cases["encode_text", method, precision, size] = text_case([size] * setup.batch)
    for gallery in GALLERIES:
        scores = torch.randn(1024, gallery, device=setup.device)
        people = gallery // 4
        queries, images = np.arange(1024) % people, np.arange(gallery) % people
        cases["ranking", "cskt", "fp32", gallery] = functools.partial(
            retrieval_metrics, scores, queries, images
        )
    return cases
