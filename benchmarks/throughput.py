"""How long training steps, encoding and loading take, and in how much memory: CSKT, plain CSKT,
full fine-tuning.

``python benchmarks/throughput.py`` on a quiet machine; ``--backbone cskt-mini --height 128 --width
64 --minutes 1`` for a trial. bf16 is measured beside fp32 on a GPU that computes it natively, and
with ``--precision bf16`` on such a CPU, into a file of its own. Cases take turns, so that a
drifting machine hits all of them alike; ratios are of medians within one run. Weights and inputs
are random: no figure here depends on their values.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor, nn

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # a script, or its subprocess, sees its own folder only
from benchmarks.plain import plain_encode_image, plain_encode_text
from cskt import CSKT, load_model
from cskt.backbones import RANDOM
from cskt.config import METHODS, TrainConfig
from cskt.data.images import decode_image
from cskt.data.pipeline import Augment
from cskt.errors import CSKTError
from cskt.files import make_folder, write_json
from cskt.losses import sdm_loss
from cskt.metrics import retrieval_metrics
from cskt.model.towers import run_layer
from cskt.numerics import computes_bf16, resolve_device, resolve_precision
from cskt.optimizer import make_optimizer
from cskt.runs import environment

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results" / "benchmarks"
LENGTHS = (
    23,
    15,
    35,
    19,
    27,
    60,
    17,
    25,
    20,
    32,
    12,
    24,
    39,
    18,
    29,
    21,
)  # spread as captions are; their mean is 26
RATIOS = (  # of what: one / other
    "training step: plain fp32 / cskt fp32",
    "training step: plain fp32 / cskt bf16",
    "training step: plain bf16 / cskt bf16",
    "training step: full fp32 / cskt fp32",
    "training step: full bf16 / cskt bf16",
    "training step: cskt bf16 / compiled bf16",
    "extra memory: cskt fp32 / plain fp32",
    "extra memory: cskt bf16 / plain fp32",
    "extra memory: cskt fp32 / full fp32",
    "encode_text: open_clip fp32 / cskt fp32",
    "encode_text: open_clip bf16 / cskt bf16",
    "one query: open_clip fp32 / cskt fp32",
    "encode_image: cskt fp32 / open_clip fp32",
    "encode_image: cskt bf16 / open_clip bf16",
)
VARIANTS = ("bpt", "dat", "lora")  # for the table of training steps, in the last precision only
OURS, DTYPES = ("cskt", "compiled", *VARIANTS), {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDE, COPIED = (
    {"cpu": 2048, "cuda": 8192},
    2**28,
)  # rows of the square matrices; bytes copied, beyond any cache
MOST_ROUNDS, DECODED, CUHK_PAIRS = (
    30,
    32,
    68_126 * 60,
)  # the last: training pairs of CUHK-PEDES times epochs
Cases = dict[
    tuple, Callable[[], Any]
]  # (what, method, precision), in a series also the size -> one call


@dataclass(frozen=True)
class Setup:
    """What the cases of a run share; every process makes the same models and inputs from it."""

    backbone: str
    image_size: tuple[int, int]
    batch: int
    device: str
    seed: int

    def config(self, method: str) -> TrainConfig:
        return TrainConfig.for_backbone(
            self.backbone, method=method if method in METHODS else "cskt"
        )

    def model(self, method: str) -> CSKT:
        torch.manual_seed(self.seed)
        return (
            load_model(self.backbone, RANDOM, self.image_size, self.config(method).cskt)
            .to(self.device)
            .train()
        )

    def images(self, batch: int) -> Tensor:
        return torch.randn(batch, 3, *self.image_size).to(self.device)

    def lengths(self) -> np.ndarray:
        """Tokens of each caption of a batch, start and end included."""
        return np.resize(LENGTHS, self.batch)

    def token_ids(self, model: CSKT, lengths: Sequence[int], method: str) -> Tensor:
        """Captions of so many tokens; for CSKT on the CPU, from where training and evaluation pass
        them too."""
        start, rng = int(model.tokenize("a")[0, 0]), np.random.default_rng(self.seed)
        ids = np.zeros((len(lengths), model.backbone.context_length), dtype=np.int64)
        for row, length in zip(ids, lengths, strict=True):
            row[:length] = [start, *rng.integers(1, start, length - 2), model.end_token]
        return torch.from_numpy(ids).to("cpu" if method in OURS else self.device)


def encoders(
    model: CSKT, method: str
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """How a method encodes images and captions; ``full`` is open_clip's own."""
    if method == "plain":
        return functools.partial(plain_encode_image, model), functools.partial(
            plain_encode_text, model
        )
    owner = model.backbone if method == "full" else model
    return owner.encode_image, owner.encode_text


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
    own_images, ids = setup.images(setup.batch), setup.token_ids(model, setup.lengths(), method)
    identities = torch.arange(setup.batch, device=setup.device) // 2
    encode_image, encode_text = encoders(model, method)

    def step(images: Tensor = own_images) -> None:
        with torch.autocast(setup.device, torch.bfloat16, enabled=precision == "bf16"):
            image_features, text_features = encode_image(images), encode_text(ids)
        loss = sdm_loss(image_features.float(), text_features.float(), identities)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def extra_memory(setup: Setup, method: str, precision: str) -> float | None:
    """MB by which one step's peak exceeds model and inputs; for a process of its own. None where it
    cannot be told."""
    step = training_step(setup, *trainee(setup, method, precision), method, precision)
    if setup.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if not Path("/proc/self/clear_refs").exists():
        return None

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024e-6 * int(next(line for line in lines if line.startswith(name)).split()[1])

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(
            0
        )  # what building the model left free must not hide the step's needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    step()
    return status("VmHWM") - before


def cost(
    model: CSKT,
    ends: np.ndarray,
    method: str,
    precision: str,
    training: bool,
    towers: str = "image text",
) -> tuple[float, float]:
    """(FLOPs, bytes) of the matrix products of one training step, or of encoding; ``ends``: places
    of the end tokens.

    Counted are patch embedding, linear maps, attention and adapters, two FLOPs per multiply-add. In
    training a map is paid for again for its input's gradient and, if it is trained, for its
    weight's; attention twice again. Of ``cskt`` only what its identities leave to do counts (no
    rows of prompts, start token and padding, no hidden keys, one row in the last block, no gradient
    of the first block's input): utilisation takes no credit for work that was saved. Bytes:
    operands read and results written once. Left out, under one percent: pointwise work, prompts,
    projections.
    """
    ours, frozen = method in OURS, method in (*OURS, "plain")
    batch, prompts, columns = len(ends), model.num_prompts * frozen, model.backbone.context_length
    size, again, total = DTYPES[precision].itemsize, training * (1 if frozen else 2), np.zeros(2)

    def product(rows: int, inside: int, outside: int, times: int) -> None:
        moved = rows * (inside + outside) + inside * outside
        total[:] += times * np.array([2 * rows * inside * outside, size * moved])

    def tower(blocks: nn.ModuleList, name: str, rows: int, pairs: int, pairs_read: int) -> None:
        adapters, lora = (getattr(model, f"{name}_{kind}") for kind in ("adapters", "lora"))
        for i, block in enumerate(blocks):
            width, last = block.attn.embed_dim, ours and i == len(blocks) - 1
            queries, inward = batch if last else rows, 1 + again * (i > 0 or not ours)
            product(rows, width, 2 * width, inward)  # keys and values
            product(queries, width, width, inward)
            product(queries, width, width, 1 + again)
            product(queries, width, block.mlp.c_fc.out_features, 2 * (1 + again))
            total[:] += (1 + 2 * training) * np.array(
                [4 * width * (pairs_read if last else pairs), 2 * size * width * (rows + queries)]
            )
            if len(lora):
                rank = len(lora[i].down)
                product(rows, width, rank, 1 + 2 * training)
                product(rows, rank, 3 * width, 1 + 2 * training)
            if frozen and len(adapters):
                product(queries, width, adapters[i].down.out_features, 2 * (1 + 2 * training))

    if "image" in towers:
        visual, patches = model.backbone.visual, math.prod(model.backbone.visual.grid_size)
        rows, keys, width = (
            1 + patches + prompts * (not ours),
            1 + patches + prompts,
            visual.conv1.out_channels,
        )
        product(
            batch * patches, visual.conv1.weight[0].numel(), width, 1 + (training and not frozen)
        )
        tower(
            visual.transformer.resblocks, "vision", batch * rows, batch * rows * keys, batch * keys
        )
    if "text" in towers:
        words = ends.clip(max=columns - 1 - prompts)
        read = int((words + 1 + prompts).sum())
        rows, pairs = batch * columns, batch * columns**2
        if ours:
            rows, pairs = (
                int(words.sum()),
                int((words * (1 + prompts) + words * (words + 1) // 2).sum()),
            )
        tower(model.backbone.transformer.resblocks, "text", rows, pairs, read)
    return float(total[0]), float(total[1])


def interleaved(cases: Cases, device: str, rounds: int, until: float) -> dict[tuple, list[float]]:
    """Seconds of each call: a warm-up of every case, then at least ``rounds`` rounds over all of
    them, and more while another one ends before ``until`` (of ``time.monotonic``)."""
    calls = 10 if device == "cuda" else 1  # a GPU is kept as busy as training keeps it
    wait, repeats = (
        torch.cuda.synchronize if device == "cuda" else bool,
        {case: [] for case in cases},
    )
    for finished in range(MOST_ROUNDS + 1):
        begin = time.monotonic()
        for case, run in cases.items():
            wait()
            clock = time.perf_counter()
            for _ in range(calls):
                run()
            wait()
            repeats[case] += [(time.perf_counter() - clock) / calls] * (finished > 0)
        now = time.monotonic()
        if finished >= rounds and now + (now - begin) > until:
            break
    return repeats


def loader(setup: Setup, folder: Path) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """Functions that load one augmented batch from a memory-mapped file, and that decode JPEG files
    on all cores."""
    rng, (height, width), config = (
        np.random.default_rng(setup.seed),
        setup.image_size,
        setup.config("cskt"),
    )
    np.save(
        folder / "images.npy",
        rng.integers(256, size=(8 * setup.batch, 3, height, width), dtype=np.uint8),
    )
    images = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c"))
    augment = Augment(
        setup.image_size, flip=config.flip, pad=config.pad, erasing=config.erasing
    ).to(setup.device)
    files = [folder / f"{i}.jpg" for i in range(DECODED)]
    for file in files:  # smooth, as photographs are
        colours = Image.fromarray(rng.integers(256, size=(12, 4, 3), dtype=np.uint8))
        colours.resize((width, height), Image.Resampling.BICUBIC).save(file)

    def decode() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(functools.partial(decode_image, image_size=setup.image_size), files))

    return lambda: augment(
        images[torch.randint(len(images), (setup.batch,))].to(setup.device)
    ), decode


def training_cases(setup: Setup, steps: Sequence[tuple[str, str]], folder: Path) -> Cases:
    """Training steps, what feeds them, and what the machine can do at best (a matrix product, a
    copy)."""
    cases: Cases = {}
    full = trainee(setup, "full", "fp32")  # the largest, and the same in both precisions
    for method, precision in steps:
        owner = full if method == "full" else trainee(setup, method, precision)
        cases["training step", method, precision] = training_step(setup, *owner, method, precision)
    load, cases["decode", "cskt", "uint8"] = loader(setup, folder)
    cases["loader", "cskt", "fp32"], source = load, torch.randn(COPIED // 4, device=setup.device)
    cases["copy", "", "fp32"] = functools.partial(torch.empty_like(source).copy_, source)
    for precision in dict.fromkeys(precision for _, precision in steps):
        step, shape = (
            cases["training step", "cskt", precision],
            (3, SIDE[setup.device], SIDE[setup.device]),
        )
        cases["step with loader", "cskt", precision] = lambda step=step: step(load())
        one, other, out = torch.randn(shape, device=setup.device).to(DTYPES[precision])
        cases["matmul", "", precision] = functools.partial(torch.mm, one, other, out=out)
    return cases


def encoding_cases(setup: Setup, precisions: Sequence[str]) -> Cases:
    """Encoding one batch; in the last precision also over batch sizes and caption lengths; ranking
    over galleries."""
    model, cases = setup.model("cskt"), {}
    for precision, method in itertools.product(precisions, ("cskt", "open_clip")):
        ours, dtype, series = method == "cskt", DTYPES[precision], precision == precisions[-1]
        # Each at its best in bf16: CSKT fused, open_clip with its weights in bf16, as its own
        # loader offers.
        owner = (
            copy.deepcopy(model).fuse(dtype)
            if ours
            else copy.deepcopy(model.backbone).eval().to(dtype)
        )
        encode_image, encode_text = (
            torch.inference_mode()(run) for run in (owner.encode_image, owner.encode_text)
        )
        for size in [(), *((size,) for size in (1, 2, 4, 8, 16, 32) if series)]:
            images = setup.images(*size or [setup.batch]).to(torch.float32 if ours else dtype)
            cases["encode_image", method, precision, *size] = functools.partial(
                encode_image, images
            )
        cases["one query", method, precision] = functools.partial(
            encode_text, setup.token_ids(model, [26], method)
        )
        for size in [(), *((size,) for size in (8, 16, 24, 36, 52, 77) if series)]:
            ids = setup.token_ids(model, [*size] * setup.batch or setup.lengths(), method)
            cases["encode_text", method, precision, *size] = functools.partial(encode_text, ids)
    for gallery in (512, 1024, 2048, 4096, 8192):
        scores, people = torch.randn(1024, gallery, device=setup.device), gallery // 4
        cases["ranking", "cskt", "fp32", gallery] = functools.partial(
            retrieval_metrics, scores, np.arange(1024) % people, np.arange(gallery) % people
        )
    return cases


def ratios_of(values: dict[tuple, float], batch: int) -> dict[str, float]:
    """Every ratio that the measured values, (what, method, precision) -> seconds or MB, allow."""
    ratios = {}
    for name in RATIOS:
        what, _, pair = name.partition(": ")
        above, below = ((what, *one.split()) for one in pair.split(" / "))
        if values.get(above) and values.get(below):
            ratios[name] = values[above] / values[below]
    for (what, _, precision), seconds in values.items():
        if what == "step with loader":
            ratios[f"loader / step with loader: {precision}"] = (
                values["loader", "cskt", "fp32"] / seconds
            )
            ratios[f"minutes of training at CUHK-PEDES size: {precision}"] = (
                CUHK_PAIRS / batch * seconds / 60
            )
    return ratios


def precisions_of(precision: str, device: str) -> list[str]:
    """What is measured: fp32 and, where it is the device's choice or asked for and computed
    natively, bf16."""
    if precision == "bf16" and not computes_bf16(device):
        raise CSKTError(
            f"this {device} does not compute bf16 natively, so its speed here means nothing; measure with "
            "precision 'fp32' or 'auto'."
        )
    return ["fp32", "bf16"] if resolve_precision(precision, device) == "bf16" else ["fp32"]


def main(
    backbone: str = "ViT-B-16-quickgelu",
    height: int = 384,
    width: int = 128,
    batch: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    minutes: float = 8.0,
    rounds: int = 3,
    seed: int = 0,
    compile: bool = False,
    output: Path | None = None,
) -> None:
    """Measure for about MINUTES, every case at least ROUNDS times after a warm-up; write OUTPUT,
    print a table."""
    started, begin, device = datetime.now(UTC), time.monotonic(), resolve_device(device)
    setup = Setup(
        backbone, (height, width), batch or (128 if device == "cuda" else 16), device, seed
    )
    precisions = precisions_of(precision, device)
    name = (
        "throughput-cpu-bf16"
        if device == "cpu" and "bf16" in precisions
        else f"throughput-{device}"
    )
    output, load = output or RESULTS / f"{name}.json", getattr(os, "getloadavg", lambda: None)()
    make_folder(output.parent)
    steps = [
        *itertools.product(("plain", "cskt", "full"), precisions),
        *((name, precisions[-1]) for name in VARIANTS),
    ]
    values: dict[tuple, Any] = {}
    for step in steps:  # before this process is big itself
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            values["extra memory", *step] = pool.submit(extra_memory, setup, *step).result()
    steps += itertools.product(
        ("compiled",) * compile, precisions
    )  # it has memory needs of its own
    now, end = time.monotonic(), begin + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        repeats = interleaved(
            training_cases(setup, steps, Path(folder)), device, rounds, now + 0.6 * (end - now)
        )
    repeats |= interleaved(encoding_cases(setup, precisions), device, rounds, end)

    values |= {case: median(times) for case, times in repeats.items() if len(case) == 3}
    rates = {
        f"matmul_{precision}": 2 * SIDE[device] ** 3 / values["matmul", "", precision]
        for precision in precisions
    }
    rates |= {
        "copy": 2 * COPIED / values["copy", "", "fp32"],
        "decode": DECODED / values["decode", "cskt", "uint8"],
    }
    ratios, rows, scaling = ratios_of(values, setup.batch), [], []
    models, ends = (
        {name: setup.model(name) for name in ("cskt", "full", *VARIANTS)},
        setup.lengths() - 1,
    )
    for (what, method, precision, *size), times in repeats.items():
        row = {
            "what": what,
            "method": method,
            "precision": precision,
            "seconds": median(times),
            "repeats": times,
        }
        if size:
            scaling.append({**row, "size": size[0]})
        elif method:
            row |= {
                "batch": {"decode": DECODED, "one query": 1}.get(what, setup.batch),
                "extra_memory_mb": None,
            }
            if what == "training step":
                row["extra_memory_mb"] = values.get(("extra memory", method, precision))
            if what in ("training step", "encode_image", "encode_text"):
                towers = "image text" if what == "training step" else what
                model = models.get(method, models["cskt"])
                row["flops"], row["bytes"] = cost(
                    model, ends, method, precision, what == "training step", towers
                )
                row["trained"] = model.num_trainable
                row["utilisation"] = row["flops"] / row["seconds"] / rates[f"matmul_{precision}"]
                ratios[f"utilisation: {what} {method} {precision}"] = row["utilisation"]
            rows.append(row)
    write_json(
        output,
        {
            "kind": "benchmark",
            "name": "throughput",
            "started": started.isoformat(timespec="seconds"),
            "duration_s": round(time.monotonic() - begin, 3),
            "settings": {
                "backbone": backbone,
                "image_size": [height, width],
                "batch": setup.batch,
                "seed": seed,
                "captions": "random words; tokens per caption, start and end included",
                "tokens": (ends + 1).tolist(),
                "precisions": precisions,
                "minutes": minutes,
                "rounds": rounds,
                "compile": compile,
                "load_average_at_start": load,
            },
            "rows": rows,
            "ratios": ratios,
            "rates": rates,
            "scaling": scaling,
            **environment(device),
        },
    )
    for row in rows:
        memory = row["extra_memory_mb"]
        typer.echo(
            f"{row['what']:<18}{row['method']:<11}{row['precision']:<6}{1e3 * row['seconds']:>11.2f} ms"
            + (f"{memory:>9.0f} MB" if memory else "")
        )
    typer.echo(
        "\n".join(
            [
                "",
                *(f"{name:<58}{value:>10.3f}" for name, value in ratios.items()),
                "",
                f"-> {output}",
            ]
        )
    )


if __name__ == "__main__":
    typer.run(main)
