"""Whether a training on this machine gives what the committed runs gave: their interval, and the
sentence about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from cskt.config import TrainConfig
from cskt.errors import ConfigurationError, RunError
from cskt.report.settings import device_kind

MEASURE = "R@1"  # text to image, on test, of the model that the run kept
WIDTH = 2  # standard deviations on either side of the mean
# Fields that may differ between the runs: their seed, where things lie, and what the record itself
# says (precision and hardware), since a configuration may leave these to the machine ("auto").
FREE = ("seed", "data_root", "output", "precision", "device")


@dataclass(frozen=True)
class Interval:
    """Mean +- two standard deviations of R@1, in percent, over the seeds of the committed runs."""

    dataset: str
    low: float
    high: float
    seeds: int

    def holds(self, value: float) -> bool:
        """Whether ``value`` is inside; to one decimal, as it is printed, so that the sentence is
        true as it stands."""
        return round(self.low, 1) <= round(value, 1) <= round(self.high, 1)

    def sentence(self, value: float) -> str:
        """One line: reproduced or not, the figure, the interval, and what it is an interval of."""
        outcome = "reproduced" if self.holds(value) else "not reproduced"
        place = "within" if self.holds(value) else "outside"
        return (
            f"{outcome}: {value:.1f} {place} {self.low:.1f} to {self.high:.1f} ({self.dataset}, "
            f"synthetic, {MEASURE}, mean +- {WIDTH} sd of {self.seeds} seeds)"
        )


def committed_interval(
    records: Iterable[dict[str, Any]],
    config: TrainConfig,
    data_version: int | None,
    weights_fingerprint: str,
) -> Interval:
    """The interval of those ``records`` that were made with ``config``, seeds aside, in fp32 on a
    CPU.

    Args:
        records: what the committed run files hold.
        config: of the training that is to be compared with them.
        data_version: of the data set that it uses.
        weights_fingerprint: of the backbone's weights that it starts from.

    Raises: RunError: fewer than two seeds are left, or those that are have other data or other
        weights.
    """
    alike = [record for record in records if _same_settings(record, config)]
    of_version = [record for record in alike if record.get("data_version") == data_version]
    if alike and not of_version:
        versions = ", ".join(sorted({str(record.get("data_version")) for record in alike}))
        raise RunError(
            f"the committed runs on {config.dataset} are of data version {versions} but this is "
            f"version {data_version}, so there is nothing to compare with; train them again with "
            "python -m cskt reproduce, or use the commit that they belong to."
        )
    comparable = [
        record for record in of_version if record.get("weights_fingerprint") == weights_fingerprint
    ]
    if of_version and not comparable:
        raise RunError(
            f"the committed runs on {config.dataset} started from other weights of "
            f"{config.backbone} than {weights_fingerprint}, so there is nothing to compare with; "
            "train them again with python -m cskt reproduce, or use the commit that they belong "
            "to."
        )
    figures = {}
    for record in comparable:
        figures[record["seed"]] = record["metrics"]["text_to_image"][MEASURE]
    if len(figures) < 2:
        raise RunError(
            f"an interval needs two seeds, and the run files hold {len(figures)} of "
            f"{config.method} on {config.dataset} with the default settings, in fp32 on a CPU; "
            "name another folder with --records, or train them with python -m cskt reproduce."
        )
    middle = mean(figures.values())
    spread = stdev(figures.values())
    return Interval(
        dataset=config.dataset,
        low=middle - WIDTH * spread,
        high=middle + WIDTH * spread,
        seeds=len(figures),
    )


def _same_settings(record: dict[str, Any], config: TrainConfig) -> bool:
    """Whether a run was made with ``config``, but for :data:`FREE`, in fp32 on a CPU and on its own
    data set."""
    if record.get("kind", "train") != "train" or record["dataset"] != config.dataset:
        return False
    if record.get("precision") != "fp32" or device_kind(record) != "cpu":
        return False
    try:
        made_with = TrainConfig.from_dict(record["config"])
    except ConfigurationError:  # settings of another version of this code
        return False
    free: dict[str, Any] = {name: getattr(config, name) for name in FREE}
    return dataclasses.replace(made_with, **free) == config
