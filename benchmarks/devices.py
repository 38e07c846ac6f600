"""One training step on several processes, and in pieces: seconds, and memory at its peak.

Each row is measured in processes of its own, started by torchrun on this machine: batches of a
model with random weights, encoded at once or ``--pieces`` pairs at a time, by 1, 2 and 4 processes
of one thread each. Usage::

    python benchmarks/devices.py --output book/results/benchmarks/devices-cpu.json
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from typer import Option

from cskt.config import TrainConfig
from cskt.data.augment import normalize
from cskt.environment import environment
from cskt.errors import RunError
from cskt.files import make_folder, write_json
from cskt.global_step import Share, backward
from cskt.losses import sdm_loss
from cskt.model.backbone import RANDOM
from cskt.numerics import resolve_device, resolve_precision
from cskt.optimizer import make_optimizer
from cskt.ranks import Ranks, launched
from cskt.runs import build_model

WORDS = 30  # of a caption


def memory(field: str) -> float:
    """MB: ``VmRSS``, what this process holds, or ``VmHWM``, the most since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024e-6 * int(line.split()[1])
    raise RunError(f"/proc/self/status has no {field}; run this on Linux.")


def begin_peak(device: torch.device) -> float:
    """Start measuring the peak anew; what is held now, MB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def peak(device: torch.device) -> float:
    """The most that was held since :func:`begin_peak`, MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return memory("VmHWM")


def measure(config: TrainConfig, repeats: int, output: Path) -> None:
    """What each process of one row does; the first one writes ``output``."""
    device_name = resolve_device(config.device)
    precision = resolve_precision(config.precision, device_name)
    fabric = launched(config, device_name, precision, output)
    ranks = Ranks(fabric)
    device = fabric.device
    model = build_model(config).to(device)
    if precision == "bf16":
        model.cast_frozen(torch.bfloat16)
    wrapped, optimizer = fabric.setup(model, make_optimizer(model, config)[0])
    model.train()

    rows = ranks.share(config.batch_size)
    generator = torch.Generator().manual_seed(config.seed)
    pixels = (config.batch_size, 3, *config.image_size)
    images = torch.randint(256, pixels, generator=generator, dtype=torch.uint8)[rows]
    tokens = model.tokenize([" ".join(["red"] * WORDS)] * config.batch_size)[rows]
    identities = torch.arange(config.batch_size, device=device)
    share = Share(normalize(images.to(device)), tokens, identities)

    def step() -> None:
        optimizer.zero_grad()
        backward(fabric, wrapped, share, sdm_loss, config.micro_batch_size)
        optimizer.step()

    held = begin_peak(device)
    step()
    extra = peak(device) - held
    seconds = []
    for _ in range(repeats):
        fabric.barrier()
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        fabric.barrier()
        seconds.append(time.perf_counter() - start)
    if ranks.first:
        write_json(output, {"repeats": seconds, "extra_memory_mb": round(extra, 1)})


def start(config: TrainConfig, processes: int, repeats: int) -> dict[str, Any]:
    """One row: :func:`measure` in ``processes`` processes."""
    with tempfile.TemporaryDirectory() as folder:
        question = Path(folder) / "config.json"
        answer = Path(folder) / "answer.json"
        write_json(question, config.to_dict())
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), __file__, "--row", str(question)]
        command += ["--output", str(answer), "--repeats", str(repeats)]
        threads = {} if config.device == "cuda" else {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
        if done.returncode:
            raise RunError(f"a row of {processes} processes failed: {done.stderr[-2000:]}")
        measured = json.loads(answer.read_text())
    return {
        "processes": processes,
        "batch": config.batch_size,
        "piece": config.micro_batch_size,
        "seconds": median(measured["repeats"]),
        **measured,
    }


def main(
    output: Annotated[Path, Option(help="File for the figures as json.")],
    backbone: Annotated[str, Option(help="Of random weights.")] = "ViT-B-16-quickgelu",
    height: Annotated[int, Option(help="Of an image, pixels.")] = 384,
    width: Annotated[int, Option(help="Of an image, pixels.")] = 128,
    batches: Annotated[str, Option(help="Batch sizes, commas between.")] = "8,16,32",
    batches_in_pieces: Annotated[str, Option(help="The same, encoded in pieces.")] = "16,32,128",
    pieces: Annotated[int, Option(help="Pairs encoded at a time.")] = 8,
    processes: Annotated[str, Option(help="Numbers of processes, commas between.")] = "1,2,4",
    shared_batch: Annotated[int, Option(help="The batch that several processes share.")] = 32,
    repeats: Annotated[int, Option(min=1, help="Steps of which the median counts.")] = 3,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    row: Annotated[Path | None, Option(help="For the processes of one row.")] = None,
) -> None:
    """Measure steps by batch size, whole and in pieces, and by number of processes."""
    if row is not None:
        measure(TrainConfig.from_dict(json.loads(row.read_text())), repeats, output)
        return
    make_folder(output.parent)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    begin = time.monotonic()

    def config(batch: int, piece: int | None) -> TrainConfig:
        return TrainConfig.paper(
            backbone=backbone,
            pretrained=RANDOM,
            image_size=(height, width),
            batch_size=batch,
            micro_batch_size=piece,
            device=device,
        )

    cases = [(config(int(batch), None), 1) for batch in batches.split(",")]
    cases += [(config(int(batch), pieces), 1) for batch in batches_in_pieces.split(",")]
    for count in processes.split(","):
        if count != "1":
            cases.append((config(shared_batch, None), int(count)))
    rows = []
    for setting, count in cases:
        measured = start(setting, count, repeats)
        rows.append(measured)
        typer.echo(
            f"{count} processes, batch {measured['batch']:4}, pieces of {measured['piece']}: "
            f"{measured['seconds']:7.2f} s, {measured['extra_memory_mb']:8.0f} MB"
        )
    trained = build_model(config(2, None)).num_trainable
    record = {
        "kind": "benchmark",
        "name": "devices",
        "started": started,
        "duration_s": round(time.monotonic() - begin, 3),
        "settings": {
            "backbone": backbone,
            "weights": "random",
            "image_size": [height, width],
            "precision": resolve_precision("auto", device),
            "trained": trained,
            "words": WORDS,
            "repeats": repeats,
            "threads a process": 1,
        },
        "rows": rows,
        **environment(device),
    }
    write_json(output, record)


if __name__ == "__main__":
    typer.run(main)
