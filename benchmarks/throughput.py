"""How long training steps, encoding and loading take, and in how much memory: CSKT, plain CSKT,
full fine-tuning.

``python benchmarks/throughput.py`` on a quiet machine; ``--backbone cskt-mini --height 128 --width
64 --minutes 1`` for a trial. bf16 is measured beside fp32 on a GPU that computes it natively, and
with ``--precision bf16`` on such a CPU, into a file of its own. Cases take turns, so that a
drifting machine hits all of them alike; ratios are of medians within one run. Weights and inputs
are random: no figure here depends on their values.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer

# A script, or its subprocess, sees its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.costs import VARIANTS, cost
from benchmarks.throughput_cases import (
    COPIED,
    DECODED,
    SIDE,
    Case,
    Cases,
    Setup,
    encoding_cases,
    extra_memory,
    training_cases,
)
from cskt.environment import environment
from cskt.errors import ResourceError
from cskt.files import make_folder, write_json
from cskt.numerics import computes_bf16, resolve_device, resolve_precision

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results" / "benchmarks"
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
MOST_ROUNDS = 30
CUHK_PAIRS = 68_126 * 60  # training pairs of CUHK-PEDES times epochs
COUNTED = {  # whose matrix products are counted: of which towers
    "training step": ("image", "text"),
    "encode_image": ("image",),
    "encode_text": ("text",),
}
Values = dict[Case, Any]  # (what, method, precision) -> seconds, or MB where they are known


def interleaved(cases: Cases, device: str, rounds: int, until: float) -> dict[Case, list[float]]:
    """Seconds of each call: a warm-up of every case, then at least ``rounds`` rounds over all of
    them, and more while another one ends before ``until`` (of ``time.monotonic``)."""
    repeats: dict[Case, list[float]] = {case: [] for case in cases}
    for finished in range(MOST_ROUNDS + 1):
        begin = time.monotonic()
        for case, run in cases.items():
            seconds = _seconds_of_a_call(run, device)
            if finished > 0:
                repeats[case].append(seconds)
        now = time.monotonic()
        if finished >= rounds and now + (now - begin) > until:
            break
    return repeats


def _seconds_of_a_call(run: Any, device: str) -> float:
    calls = 1
    if device == "cuda":
        calls = 10  # a GPU is kept as busy as training keeps it
        torch.cuda.synchronize()
    clock = time.perf_counter()
    for _ in range(calls):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - clock) / calls


def ratios_of(values: Values, batch: int) -> dict[str, float]:
    """Every ratio that the measured values, (what, method, precision) -> seconds or MB, allow."""
    ratios = {}
    for name in RATIOS:
        what, _, pair = name.partition(": ")
        above, below = pair.split(" / ")
        numerator = values.get((what, *above.split()))
        denominator = values.get((what, *below.split()))
        if numerator and denominator:
            ratios[name] = numerator / denominator
    for (what, _, precision), seconds in values.items():
        if what == "step with loader":
            share = values["loader", "cskt", "fp32"] / seconds
            minutes = CUHK_PAIRS / batch * seconds / 60
            ratios[f"loader / step with loader: {precision}"] = share
            ratios[f"minutes of training at CUHK-PEDES size: {precision}"] = minutes
    return ratios


def precisions_of(precision: str, device: str) -> list[str]:
    """What is measured: fp32 and, where it is the device's choice or asked for and computed
    natively, bf16."""
    if precision == "bf16" and not computes_bf16(device):
        raise ResourceError(
            f"this {device} does not compute bf16 natively, so its speed here means nothing; "
            "measure with precision 'fp32' or 'auto'."
        )
    resolved = resolve_precision(precision, device)
    return ["fp32", "bf16"] if resolved == "bf16" else ["fp32"]


def memory_of(setup: Setup, steps: list[tuple[str, str]]) -> Values:
    """MB of each training step, in a process of its own; before this process is big itself."""
    values = {}
    for method, precision in steps:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            needed = pool.submit(extra_memory, setup, method, precision).result()
        values["extra memory", method, precision] = needed
    return values


def rates_of(values: Values, device: str, precisions: list[str]) -> dict[str, float]:
    """What the machine does at best: FLOPs, bytes and files a second."""
    rates = {}
    for precision in precisions:
        operations = 2 * SIDE[device] ** 3
        rates[f"matmul_{precision}"] = operations / values["matmul", "", precision]
    rates["copy"] = 2 * COPIED / values["copy", "", "fp32"]
    rates["decode"] = DECODED / values["decode", "cskt", "uint8"]
    return rates


def rows_of(
    setup: Setup, repeats: dict[Case, list[float]], values: Values, rates: dict[str, float]
) -> list[dict[str, Any]]:
    """A row for each case that is no limit of the machine and in no series."""
    models = {name: setup.model(name) for name in ("cskt", "full", *VARIANTS)}
    batches = {"decode": DECODED, "one query": 1}
    ends = setup.lengths() - 1
    rows = []
    for case, times in repeats.items():
        what, method, precision = case[:3]
        if len(case) > 3 or not method:
            continue
        row = _timed(case, times)
        row["batch"] = batches.get(what, setup.batch)
        row["extra_memory_mb"] = None
        if what == "training step":
            row["extra_memory_mb"] = values.get(("extra memory", method, precision))
        if what in COUNTED:
            model = models.get(method, models["cskt"])
            training = what == "training step"
            needed = cost(model, ends, method, precision, training, COUNTED[what])
            row["flops"] = float(needed.flops)
            row["bytes"] = float(needed.bytes)
            row["trained"] = model.num_trainable
            row["utilisation"] = row["flops"] / row["seconds"] / rates[f"matmul_{precision}"]
        rows.append(row)
    return rows


def scaling_of(repeats: dict[Case, list[float]]) -> list[dict[str, Any]]:
    """A row for each case of a series."""
    rows = []
    for case, times in repeats.items():
        if len(case) > 3:
            row = _timed(case, times)
            row["size"] = case[3]
            rows.append(row)
    return rows


def _timed(case: Case, times: list[float]) -> dict[str, Any]:
    what, method, precision = case[:3]
    return {
        "what": what,
        "method": method,
        "precision": precision,
        "seconds": median(times),
        "repeats": times,
    }


def report(record: dict[str, Any], output: Path) -> str:
    """Rows and ratios as text."""
    lines = []
    for row in record["rows"]:
        memory = row["extra_memory_mb"]
        line = f"{row['what']:<18}{row['method']:<11}{row['precision']:<6}"
        line += f"{1e3 * row['seconds']:>11.2f} ms"
        if memory:
            line += f"{memory:>9.0f} MB"
        lines.append(line)
    lines.append("")
    for name, value in record["ratios"].items():
        lines.append(f"{name:<58}{value:>10.3f}")
    lines.append(f"\n-> {output}")
    return "\n".join(lines)


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
    started, begin = datetime.now(UTC), time.monotonic()
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    device = resolve_device(device)
    if batch is None:
        batch = 128 if device == "cuda" else 16
    setup = Setup(backbone, (height, width), batch, device, seed)
    precisions = precisions_of(precision, device)
    if output is None:
        in_bf16 = device == "cpu" and "bf16" in precisions
        output = RESULTS / f"throughput-{device}{'-bf16' if in_bf16 else ''}.json"
    make_folder(output.parent)

    steps = list(itertools.product(("plain", "cskt", "full"), precisions))
    steps += [(method, precisions[-1]) for method in VARIANTS]
    values = memory_of(setup, steps)
    if compile:  # it has memory needs of its own
        steps += [("compiled", precision) for precision in precisions]
    now = time.monotonic()
    end = begin + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        cases = training_cases(setup, steps, Path(folder))
        repeats = interleaved(cases, device, rounds, now + 0.6 * (end - now))
    repeats |= interleaved(encoding_cases(setup, precisions), device, rounds, end)

    for case, times in repeats.items():
        if len(case) == 3:
            values[case] = median(times)
    rates = rates_of(values, device, precisions)
    rows = rows_of(setup, repeats, values, rates)
    ratios = ratios_of(values, batch)
    for row in rows:
        if "utilisation" in row:
            name = f"utilisation: {row['what']} {row['method']} {row['precision']}"
            ratios[name] = row["utilisation"]
    settings = asdict(setup)
    del settings["device"]
    settings |= {
        "captions": "random words; tokens per caption, start and end included",
        "tokens": setup.lengths().tolist(),
        "precisions": precisions,
        "minutes": minutes,
        "rounds": rounds,
        "compile": compile,
        "load_average_at_start": load,
    }
    record = {
        "kind": "benchmark",
        "name": "throughput",
        "started": started.isoformat(timespec="seconds"),
        "duration_s": round(time.monotonic() - begin, 3),
        "settings": settings,
        "rows": rows,
        "ratios": ratios,
        "rates": rates,
        "scaling": scaling_of(repeats),
        **environment(device),
    }
    write_json(output, record)
    typer.echo(report(record, output))


if __name__ == "__main__":
    typer.run(main)
