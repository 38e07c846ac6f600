"""Where and with what a run was made, for its record."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "cskt",
    "torch",
    "torchvision",
    "open_clip_torch",
    "lightning-fabric",
    "numpy",
    "safetensors",
)


def environment(device: str) -> dict[str, Any]:
    """Where and with what a run was made: ``commit``, ``dirty``, ``versions``, ``hardware`` (None:
    not known).

    ``dirty``: whether a file in git was changed, other than results, which runs and notebooks
    write. ``hardware["capability"]``: the vector instructions that torch's own kernels use.
    """
    return {**_commit(), "versions": _versions(), "hardware": _hardware(device)}


def _commit() -> dict[str, Any]:
    results = (":(top,exclude)book/results", ":(top,exclude)book/_assets/search")
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *results)
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):  # no git, or no clone
        return {"commit": None, "dirty": None}


def _git(*arguments: str) -> str:
    completed = subprocess.run(
        ["git", *arguments],
        text=True,
        cwd=Path(__file__).parent,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return completed.stdout.strip()


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _hardware(device: str) -> dict[str, Any]:
    if device == "cuda":
        device_name = torch.cuda.get_device_name()
    else:
        device_name = platform.processor() or platform.machine()
    return {
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device_name,
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str | None:
    """The name that the processor gives itself, where the system tells it."""
    with contextlib.suppress(OSError):
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in facts.splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or None
