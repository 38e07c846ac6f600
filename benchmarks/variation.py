"""What another machine would change: one seed of CSKT and of full fine-tuning, trained under
several numerics.

``python benchmarks/variation.py`` trains each row in a process of its own, since the instruction
sets are chosen when torch is loaded; ``--jobs 2`` trains the one-thread rows side by side,
``--epochs 1`` is a quick try. Rows are written as they finish, and a later call goes on from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import stdev
from typing import Annotated, Any

import torch
import typer
from typer import Option

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script sees its own folder only
from cskt.config import MINI, TrainConfig
from cskt.data.datasets import load_dataset
from cskt.environment import environment
from cskt.errors import CSKTError
from cskt.files import make_folder, write_json
from cskt.numerics import resolve_precision
from cskt.runs import weights_fingerprint
from cskt.training import train

SCRIPT = Path(__file__).resolve()
OUTPUT = SCRIPT.parents[1] / "book" / "results" / "benchmarks" / "variation-cpu.json"
METHODS = ("cskt", "full")
MEASURES = ("R@1", "R@5", "R@10", "mAP", "mINP")
# What ATen's AVX512 kernels are compiled for; asked for on a chip without, they stop the process.
AVX512 = ("avx512_f", "avx512_vl", "avx512_bw", "avx512_dq", "fma3")
# Variables that choose how a training computes: a row has its own and none of the caller's.
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)


@dataclass(frozen=True)
class Numerics:
    """How a training computes: variables of its process, threads, and the precision of its
    activations."""

    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    precision: str = "fp32"

    def variables(self) -> dict[str, str]:
        return {**self.environment, "OMP_NUM_THREADS": str(self.threads)}


NUMERICS: dict[str, Numerics] = {
    "this chip, 1 thread": Numerics(),
    "this chip, 2 threads": Numerics(threads=2),
    "default, 1 thread": Numerics({"ATEN_CPU_CAPABILITY": "default"}),
    "avx2, 1 thread": Numerics({"ATEN_CPU_CAPABILITY": "avx2"}),
    "oneDNN avx2, 1 thread": Numerics({"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    # The matrix products are MKL's: a chip without AVX512 has all three libraries at AVX2.
    "avx2 in all libraries, 1 thread": Numerics(
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
    ),
    "bf16, 1 thread": Numerics(precision="bf16"),
    # Last: where the chip has AVX512, "this chip" is the same.
    "avx512, 1 thread": Numerics({"ATEN_CPU_CAPABILITY": "avx512"}),
}


def impossible(numerics: Numerics) -> str | None:
    """Why this chip cannot compute so; None where it can."""
    has = getattr(torch.cpu, "get_capabilities", dict)()
    wanted = " ".join(numerics.environment.values()).lower()
    if "avx512" in wanted and not all(has.get(name) for name in AVX512):
        return "this chip has no AVX512"
    if "avx2" in wanted and not (has.get("avx2") and has.get("fma3")):
        return "this chip has no AVX2"
    if numerics.precision == "bf16" and resolve_precision("bf16", "cpu") != "bf16":
        return "this chip does not compute bf16 natively"
    return None


def row_config(
    method: str, numerics: Numerics, dataset: str, seed: int, epochs: int | None, output: str | None
) -> TrainConfig:
    """The embedded default on the processor; ``epochs`` None: its own number of them."""
    changes = {} if epochs is None else {"epochs": epochs}
    return TrainConfig.mini(
        dataset,
        method=method,
        seed=seed,
        precision=numerics.precision,
        device="cpu",
        output=output,
        **changes,
    )


def measures(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: metrics["text_to_image"][name] for name in MEASURES}


def train_row(
    method: str, name: str, dataset: str, seed: int, epochs: int | None
) -> dict[str, Any]:
    """Train one row in this process, which was started with the row's variables; returns the
    row."""
    numerics, start = NUMERICS[name], time.monotonic()
    torch.set_num_threads(numerics.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            row_config(method, numerics, dataset, seed, epochs, f"{folder}/run"), progress=False
        )
    selected = run.record["selected"]
    history = [
        {
            "epoch": int(row["epoch"]),
            "val R@1": float(row["val R@1"]),
            "test R@1": float(row["test R@1"]),
        }
        for row in run.history
    ]
    made = environment("cpu")
    return {
        "method": method,
        "numerics": name,
        "environment": numerics.variables(),
        "precision": run.record["precision"],
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),  # what ATen took
        "last": measures(selected["last"]["metrics"]),
        "val": measures(selected["val"]["metrics"]),
        "history": history,
        "commit": made["commit"],
        "dirty": made["dirty"],
        "duration_s": round(time.monotonic() - start, 3),
    }


def start_row(method: str, name: str, settings: list[str]) -> dict[str, Any]:
    """Train one row in a process of its own."""
    variables = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    variables.update(NUMERICS[name].variables())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        command = [
            sys.executable,
            str(SCRIPT),
            *settings,
            "--row",
            method,
            name,
            "--output",
            str(file),
        ]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise CSKTError(
                f"{method}, {name} ended with exit code {done.returncode} ({last}); "
                "mend that and call again: finished rows are kept."
            )
        return json.loads(file.read_text())


def finished(
    rows: list[tuple[str, str]], settings: list[str], jobs: int
) -> Iterator[dict[str, Any]]:
    """Rows as they finish: those of one thread ``jobs`` at a time, the others alone."""
    alone = [row for row in rows if NUMERICS[row[1]].threads > 1]
    together = [row for row in rows if row not in alone]
    for part, workers in ((alone, 1), (together, jobs)):
        with ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(start_row, *row, settings) for row in part]
            try:
                for task in as_completed(tasks):
                    yield task.result()
            finally:  # after a failure, what has not started is not started
                pool.shutdown(cancel_futures=True)


def read_held(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The file of an earlier call whose rows still count: one with the same ``facts``; else
    nothing."""
    if not path.is_file():
        return {}
    try:
        held = json.loads(path.read_text())
        changed = [
            name
            for name, value in facts.items()
            if _comparable(held.get(name)) != _comparable(value)
        ]
    except (ValueError, AttributeError):
        raise CSKTError(
            f"{path} is not a file of this benchmark; give another --output, or delete it."
        ) from None
    if changed:
        typer.echo(
            f"{path} was made with other {', '.join(changed)}: all its rows are trained again."
        )
    return {} if changed else held


def _comparable(value: Any) -> Any:
    """``value`` as json has it, without the caller's threads: a row has its own."""
    if isinstance(value, dict):
        value = {name: part for name, part in value.items() if name != "threads"}
    return json.loads(json.dumps(value))


def spread(rows: list[dict[str, Any]]) -> list[str]:
    """A line a method: the standard deviation over its fp32 rows, of the last epoch and of the one
    chosen on val."""
    lines = []
    for method in METHODS:
        held = [row for row in rows if row["method"] == method and row["precision"] == "fp32"]
        if len(held) > 1:
            last, val = (stdev(row[which]["R@1"] for row in held) for which in ("last", "val"))
            lines.append(
                f"{method}: sd of R@1 over {len(held)} fp32 numerics {last:.2f} at the last epoch, "
                f"{val:.2f} at the epoch chosen on val"
            )
    return lines


def main(
    output: Annotated[
        Path, Option(help="File for the rows; one that is there is completed.")
    ] = OUTPUT,
    dataset: Annotated[str, Option(help="A SynthPEDES domain.")] = "SynthPEDES-A",
    seed: Annotated[int, Option(min=0, help="Of every training.")] = 0,
    epochs: Annotated[
        int | None, Option(min=1, help="For a quick try; default the embedded default's.")
    ] = None,
    jobs: Annotated[int, Option(min=1, help="One-thread rows at a time.")] = 1,
    row: Annotated[
        tuple[str, str] | None, Option(hidden=True, help="Train METHOD under NUMERICS here.")
    ] = None,
) -> None:
    """Train one seed of CSKT and of full fine-tuning under numerics that stand for other
    machines."""
    if not dataset.startswith("SynthPEDES-"):
        raise CSKTError(
            f"{dataset} is not a SynthPEDES domain, which {MINI} is for; give one with --dataset."
        )
    if row:
        write_json(output, train_row(*row, dataset, seed, epochs))
        return
    make_folder(output.parent)
    data, start, made = load_dataset(dataset), time.monotonic(), environment("cpu")
    plain = {
        method: row_config(method, Numerics(), dataset, seed, epochs, None) for method in METHODS
    }
    facts = {
        "kind": "variation",
        "dataset": dataset,
        "data_version": data.version,
        "data_fingerprint": data.fingerprint,
        "weights_fingerprint": weights_fingerprint(plain["cskt"]),
        "seed": seed,
        "settings": {method: config.to_dict() for method, config in plain.items()},
        "hardware": made["hardware"],
        "versions": made["versions"],
    }
    skipped = {name: why for name, numerics in NUMERICS.items() if (why := impossible(numerics))}
    order = [(method, name) for name in NUMERICS if name not in skipped for method in METHODS]
    for name, why in skipped.items():
        typer.echo(f"skipped: {name} ({why})")
    held = read_held(output, facts)
    rows = {(one["method"], one["numerics"]): one for one in held.get("rows", ())}
    missing = [place for place in order if place not in rows]
    typer.echo(f"{len(order) - len(missing)} of {len(order)} rows are there")
    begun = held.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
    settings = [
        "--dataset",
        dataset,
        "--seed",
        str(seed),
        *(["--epochs", str(epochs)] if epochs else []),
    ]
    for one in finished(missing, settings, jobs):
        rows[one["method"], one["numerics"]] = one
        typer.echo(
            f"{one['method']:<6}{one['numerics']:<34}"
            f"R@1 {one['last']['R@1']:.2f} at the last epoch, "
            f"{one['val']['R@1']:.2f} chosen on val, {one['duration_s']:.0f} s"
        )
        done = [
            rows[place] for place in order if place in rows
        ]  # without those that this call does not know
        write_json(
            output,
            {
                **facts,
                "commit": made["commit"],
                "dirty": any(part["dirty"] for part in done),
                "started": begun,
                "duration_s": round(held.get("duration_s", 0) + time.monotonic() - start, 3),
                "skipped": skipped,
                "rows": done,
            },
        )
    typer.echo("\n".join([*spread([rows[place] for place in order]), f"-> {output}"]))


if __name__ == "__main__":
    try:
        typer.run(main)
    except CSKTError as error:
        sys.exit(f"variation: error: {error}")
