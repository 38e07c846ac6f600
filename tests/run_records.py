"""Run files written by hand, for the tests of what is made from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SETTING = "fp32, cpu, data version 2, torch 2, open_clip_torch 3, cskt 0.1"
REAL_SETTING = "fp32, cpu, torch 2, open_clip_torch 3, cskt 0.1"
INPUTS = "data ffffffff, weights eeeeeeee"
MACHINE = {"device": "x86_64", "platform": "Linux-x86_64", "threads": 1}
PACKAGES = {"torch": "2.15.0", "open_clip_torch": "3.3.0", "cskt": "0.1.0"}


def measures(r1: float) -> dict[str, Any]:
    """Both directions with the same figures around an R@1."""
    ranked = {"R@1": r1, "R@5": r1 + 20, "R@10": r1 + 30, "mAP": r1 - 5, "mINP": r1 - 10}
    return {"text_to_image": ranked, "image_to_text": ranked}


def choice(epoch: int, r1: float) -> dict[str, Any]:
    """An entry of ``selected``: the epoch that a rule chooses, and R@1 on test after it."""
    return {"epoch": epoch, "metrics": measures(r1)}


def run_file(
    folder: Path,
    name: str,
    dataset: str = "SynthPEDES-A",
    method: str = "cskt",
    seed: int = 0,
    r1: float = 30.0,
    zero_shot: float = 20.0,
    **changes: Any,
) -> Path:
    """``folder/name.json``: a run whose R@1 on test is ``r1``; ``changes`` replace fields of its
    record."""
    synthetic = dataset.startswith("Synth")
    record = {
        "kind": "train",
        "dataset": dataset,
        "synthetic": synthetic,
        "method": method,
        "seed": seed,
        "config": {"backbone": "cskt-mini", "epochs": 3},
        "selection": "val",
        "selected": {
            "val": choice(1, r1),
            "test": choice(2, r1 + 4),
            "last": choice(3, r1 + 1),
        },
        "data_version": 2 if synthetic else None,
        "data_fingerprint": "f" * 64,
        "weights_fingerprint": "e" * 16,
        "precision": "fp32",
        "commit": "c" * 40,
        "hardware": MACHINE,
        "versions": PACKAGES,
        "duration_s": 12.0,
        "trainable_parameters": 1000,
        "total_parameters": 9000,
        "metrics": measures(r1),
        "val_metrics": measures(r1 + 10),
        "zero_shot": measures(zero_shot),
        **changes,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record))
    return path


def grid_file(folder: Path, grid: str, row: str, seed: int, r1: float, **changes: Any) -> Path:
    """A run of a row of a grid, R@1 from ``r1 - 2`` to ``r1 + 3`` over people, in the folder of
    grids that is returned."""
    grids = folder / "runs"
    target = grids / grid.replace(" ", "-")
    target.mkdir(parents=True, exist_ok=True)
    name = f"{row}-{seed}".replace("/", "-")
    path = run_file(target, name, seed=seed, r1=r1, grid=grid, row=row, **changes)
    record = json.loads(path.read_text())
    record["metrics"]["text_to_image"]["intervals"] = {"R@1": [r1 - 2, r1 + 3]}
    path.write_text(json.dumps(record))
    return grids


def write_ranks(record: Path, first_rank: Sequence[int]) -> None:
    """The ranks of a run beside its file: queries of an identity each, whose right image stands at
    these ranks."""
    first = np.asarray(first_rank, dtype=np.int32)
    precision = 1 / first
    np.savez(
        record.with_suffix(".npz"),
        query_identities=np.arange(len(first)),
        first_rank=first,
        average_precision=precision,
        inverse_negative_penalty=precision,
    )


def history(*on_val: float) -> list[dict[str, float]]:
    """Epochs with these R@1 on val, and ten less on test."""
    epochs = []
    for epoch, value in enumerate(on_val, start=1):
        epochs.append({"epoch": epoch, "val R@1": value, "test R@1": value - 10, "lr": 0.1})
    return epochs


def search_file(
    folder: Path,
    method: str,
    label: str,
    rate: float,
    on_val: float,
    seed: int = 0,
    map_on_val: float = 50.0,
    warm_up: int = 1,
    **changes: Any,
) -> Path:
    """A run of the search for learning rates: R@1 on val ``on_val`` at the epoch kept, five less
    at the last one."""
    row = f"{label}, {rate:g}"
    if warm_up > 1:
        row += f", warm-up {warm_up}"
    fields = {
        "method": method,
        "config": {
            "backbone": "cskt-mini",
            "epochs": 2,
            "learning_rate": rate,
            "warmup_epochs": warm_up,
        },
        "val_metrics": {"text_to_image": {"R@1": on_val, "mAP": map_on_val}},
        "history": history(on_val, on_val - 5),
    }
    return grid_file(folder, "learning rate", row, seed, 40.0, **{**fields, **changes})


def variation_row(
    numerics: str, r1: float, method: str = "cskt", precision: str = "fp32"
) -> dict[str, Any]:
    """A training under other numerics; R@1 of its last epoch is ``r1``."""
    return {
        "method": method,
        "numerics": numerics,
        "environment": {},
        "precision": precision,
        "threads": 1,
        "last": {"R@1": r1, "mAP": r1 - 5},
        "val": {"R@1": r1},
        "history": [{"epoch": 1, "test R@1": r1}],
        "duration_s": 90.0,
    }


VARIATION_ROWS = [
    variation_row("as it is", 55.0),
    variation_row("threads 2", 55.4),
    variation_row("avx2", 59.0),
    variation_row("bf16", 56.5, precision="bf16"),
    variation_row("as it is", 63.0, method="full"),
    variation_row("avx2", 64.0, method="full"),
]


def variation_record(rows: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """What ``benchmarks/variation.py`` writes; :data:`VARIATION_ROWS` unless ``rows`` are given."""
    return {
        "kind": "variation",
        "dataset": "SynthPEDES-A",
        "data_version": 2,
        "seed": 0,
        "commit": "c" * 40,
        "hardware": {**MACHINE, "cpu_count": 2},
        "versions": PACKAGES,
        "started": "",
        "duration_s": 900.0,
        "rows": VARIATION_ROWS if rows is None else rows,
        **changes,
    }
