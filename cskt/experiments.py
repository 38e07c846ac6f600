"""The grids of runs behind the tables: what varies from row to row, everything else being equal."""

from __future__ import annotations

from typing import Any

from cskt.config import METHODS, MINI, CSKTError, TrainConfig

Rows = dict[str, dict[str, Any]]  # a row's label -> the settings that make it
_TWO = {"CSKT": "cskt", "full fine-tuning": "full"}
_DEPTHS = {MINI: (1, 2, 3, 4)}  # besides all of them
BENCHMARK, TRANSFER = "benchmark", "transfer"


def grid_rows(grid: str, backbone: str = MINI) -> Rows:
    """The rows of one of :data:`GRIDS`; settings not named are the backbone's defaults."""
    if grid == TRANSFER:
        grid = BENCHMARK
    if grid not in GRIDS:
        raise CSKTError(f"grid {grid!r} is unknown; choose one of {', '.join([*GRIDS, TRANSFER])}.")
    if grid == "prompt depth":
        rows: Rows = {str(depth): {"cskt": {"prompt_depth": depth}} for depth in _DEPTHS.get(backbone, (1, 3, 6, 9))}
        return rows | {"all": {}}
    if grid == "training length":
        usual = TrainConfig.for_backbone(backbone).epochs
        return {f"{name}, {epochs} epochs": {"method": method, "epochs": epochs} for name, method in _TWO.items()
                for epochs in (usual // 2, usual, 2 * usual)}
    if grid == "learning rate":
        return _learning_rates()
    return GRIDS[grid]


def _learning_rates() -> Rows:
    """Every trained method at three rates, and full fine-tuning with a longer warm-up: the search on val that the
    embedded default's rates (``config.MINI_LEARNING_RATES``) come from."""
    labels = {changes.get("method", "cskt"): label for label, changes in GRIDS["components"].items()}
    rates = {"full": (1e-4, 3e-4, 1e-3), "lora": (1e-3, 3e-3, 1e-2)}
    # Where the highest rate was the best on val a higher one was tried, so that no search ends at its edge.
    for method in ("bpt", "adapter-text", "dat"):
        rates[method] = (3e-3, 1e-2, 3e-2, 1e-1)
    rates["prompts-text-to-image"] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    rates["prompts-image-to-text"] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    rows: Rows = {}
    for method in METHODS:
        if method == "zero-shot":
            continue
        label = "CSKT" if method == "cskt" else labels[method]
        for rate in rates.get(method, (3e-3, 1e-2, 3e-2)):
            rows[f"{label}, {rate:g}"] = {"method": method, "learning_rate": rate}
    rows["full fine-tuning, 0.0003, warm-up 2"] = {
        "method": "full", "learning_rate": 3e-4, "warmup_epochs": 2}
    return rows


GRIDS: dict[str, Rows] = {
    BENCHMARK: {"zero-shot": {"method": "zero-shot"}, "full fine-tuning": {"method": "full"}, "CSKT": {}},
    "components": {
        "none (zero-shot)": {"method": "zero-shot"}, "text → image prompts": {"method": "prompts-text-to-image"},
        "image → text prompts": {"method": "prompts-image-to-text"}, "BPT": {"method": "bpt"},
        "vision adapter": {"method": "adapter-vision"}, "text adapter": {"method": "adapter-text"},
        "DAT": {"method": "dat"}, "CSKT (BPT + DAT)": {}, "LoRA": {"method": "lora"},
        "full fine-tuning": {"method": "full"}},
    "prompt length": {str(length): {"cskt": {"prompt_length": length}} for length in (1, 2, 4, 8, 16)},
    "prompt depth": {}, "training length": {}, "learning rate": {},  # see grid_rows
    "reduction": {str(reduction): {"cskt": {"reduction": reduction}} for reduction in (4, 8, 16, 32)},
    "adapter scale": {str(scale): {"cskt": {"vision_scale": scale, "text_scale": scale}} for scale in (
        0.1, 0.5, 1.0, 2.0, 4.0)},
    "identities": {f"{name}, {share:.0%}": {"method": method, "train_fraction": share}
                   for name, method in _TWO.items()
                   for share in (0.05, 0.1, 0.25, 0.5, 1.0)},
}
