"""Which epoch's model a run keeps, and what the other rules would have kept."""

from __future__ import annotations

from typing import Any

from cskt.config import SELECTIONS
from cskt.evaluation import MEASURES, SplitMetrics
from cskt.metrics import Metrics

Choices = dict[str, dict[str, Any]]  # rule -> its epoch so far, the score, the metrics on test


def note_choices(chosen: dict[str, dict[str, Any]], epoch: int, metrics: SplitMetrics) -> list[str]:
    """Note ``epoch`` in ``chosen`` under every rule of :data:`SELECTIONS` that prefers it to the
    ones before; those rules. R@1 decides, then mAP, then the earlier epoch; ``"last"`` always
    prefers."""
    preferring = []
    for rule in SELECTIONS:
        score: tuple[float, ...] = (epoch,)
        if rule != "last":
            measures = metrics[rule]["text_to_image"]
            score = (measures["R@1"], measures["mAP"])
        if rule not in chosen or score > chosen[rule]["score"]:
            chosen[rule] = {
                "epoch": epoch,
                "score": score,
                "metrics": _without_counts(metrics["test"]),
            }
            preferring.append(rule)
    return preferring


def selected_epochs(chosen: Choices, kept: SplitMetrics) -> dict[str, dict[str, Any]]:
    """Epoch and figures on test of every rule's choice; epoch 0 for a model without training."""
    selected = {}
    for rule in SELECTIONS:
        if chosen:
            choice = chosen[rule]
            selected[rule] = {"epoch": choice["epoch"], "metrics": choice["metrics"]}
        else:
            selected[rule] = {"epoch": 0, "metrics": _without_counts(kept["test"])}
    return selected


def _without_counts(metrics: dict[str, Metrics]) -> dict[str, dict[str, float]]:
    """The five measures of both directions, without counts and intervals."""
    figures = {}
    for direction in metrics:
        figures[direction] = {measure: metrics[direction][measure] for measure in MEASURES}
    return figures
