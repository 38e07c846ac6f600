"""Compare two methods on the same queries: paired differences with bootstrap intervals.

Nothing is encoded or ranked here: a run keeps how each query ranked the gallery (``queries.npz``),
and that is enough. Two models answer the same queries, so their difference is far better known
than either figure alone. The queries of one identity hang together (they describe the same person
and look for the same images), so identities are drawn anew, not queries. With several seeds on a
side, seeds are drawn anew as well, because a method is more than one trained model.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from cskt.errors import ConfigurationError, DataError, RunError

MEASURES = ("R@1", "R@5", "R@10", "mAP", "mINP")  # text to image, percent
QUERIES = ("query_identities", "first_rank", "average_precision", "inverse_negative_penalty")
SAME = {
    "dataset": "data set",
    "data_fingerprint": "data",
    "split": "split",
}
LEVEL = 0.95


class StoredRun(Protocol):
    """What of :class:`cskt.Run` is needed here."""

    @property
    def record(self) -> dict[str, Any]: ...

    def queries(self) -> dict[str, np.ndarray]: ...


Source = StoredRun | str | Path


@dataclass(frozen=True)
class Comparison:
    """How the runs of side ``a`` differ from those of side ``b`` on the same queries.

    ``table`` has one row per measure of :data:`MEASURES`, in percent and points: ``a``, ``b``,
    ``difference`` (a less b), ``low`` and ``high`` (the ends of its 95 % interval), ``p``
    (two-sided, of "no difference"). ``only_a`` and ``only_b`` count the queries for which one side
    alone ranks a right image first (means over the pairs of runs), ``both`` and ``neither`` the
    others.
    """

    a: str
    b: str
    seeds: tuple[int, int]
    identities: int
    queries: int
    table: pd.DataFrame
    only_a: float
    only_b: float
    both: float
    neither: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference in R@1 leaves out zero."""
        row = self.table.loc["R@1"]
        return bool(row["low"] > 0 or row["high"] < 0)

    def sentence(self) -> str:
        """The finding on R@1 in one sentence, and what it speaks of."""
        verdict = "differ reliably" if self.told_apart else "do not differ reliably"
        finding = f"{self._gap()}; they {verdict} ({self._scope()})"
        return f"{self.a} against {self.b}: {finding}."

    def _gap(self) -> str:
        """The difference in R@1 and its interval."""
        row = self.table.loc["R@1"]
        difference = f"{row['difference']:+.2f} points of R@1"
        low = f"{row['low']:+.2f}"
        high = f"{row['high']:+.2f}"
        return f"{difference} (95 % interval {low} to {high})"

    def _scope(self) -> str:
        """What the interval speaks of: methods, or the two trained models."""
        people = f"{self.identities} identities"
        first, second = self.seeds
        if min(first, second) > 1:
            return f"{first} and {second} seeds, {people}"
        return f"these trained models, {people}; other seeds may differ"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for json."""
        values = dataclasses.asdict(self) | {"seeds": list(self.seeds)}
        values["table"] = self.table.to_dict("index")
        return values | {"told_apart": self.told_apart, "sentence": self.sentence()}


def compare(
    a: Source | Sequence[Source],
    b: Source | Sequence[Source],
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """The paired difference of ``a`` less ``b`` in every measure, with 95 % intervals.

    Args:
        a, b: a run, its folder, or a committed run file with its ``.npz`` beside it; or several of
            them, the seeds of one method.
        resamples: how many bootstrap samples are drawn.
        seed: of the drawing; the same seed gives the same interval.

    With one run on a side the interval is a bootstrap over identities and speaks of the two trained
    models. With several on both it is a bootstrap of two levels, identities and seeds: of S seeds
    S - 1 are drawn, which makes the variance of their mean unbiased (Rao and Wu, JASA 1988). Such a
    bootstrap counts what is peculiar to one seed and one identity three times (Owen, Annals of
    Applied Statistics 2007), so the interval is scaled to count it once, and then widened by
    Student's t with Satterthwaite's degrees of freedom, because seeds are few.

    Raises:
        RunError: a run cannot be read or has no ``queries.npz``.
        DataError: the runs rank different data, splits or galleries.
        ConfigurationError: a side is empty, or ``resamples`` is below 100.
    """
    if resamples < 100:
        raise ConfigurationError(f"resamples must be at least 100, got {resamples}.")
    left = [_Ranking.read(source) for source in _several(a, "a")]
    right = [_Ranking.read(source) for source in _several(b, "b")]
    reference = left[0]
    for other in left[1:] + right:
        reference.require_same_queries(other)

    identities, place = np.unique(reference.identities, return_inverse=True)
    per_identity = np.bincount(place).astype(float)
    sums_a = np.stack([ranking.sums(place, len(identities)) for ranking in left])
    sums_b = np.stack([ranking.sums(place, len(identities)) for ranking in right])
    mean_a = sums_a.mean(0).sum(0) / per_identity.sum()
    mean_b = sums_b.mean(0).sum(0) / per_identity.sum()

    generator = np.random.default_rng(seed)
    drawn = _resampled_differences(sums_a, sums_b, per_identity, resamples, generator)
    difference = mean_a - mean_b
    deviations = drawn - difference
    if min(len(left), len(right)) > 1:
        deviations = deviations * _two_level_factor(sums_a, sums_b, per_identity, drawn)
    else:
        deviations = deviations * _one_level_factor(len(identities))
    tail = 100 * (1 - LEVEL) / 2
    low, high = difference + np.percentile(deviations, [tail, 100 - tail], axis=0)
    columns = {
        "a": mean_a,
        "b": mean_b,
        "difference": difference,
        "low": low,
        "high": high,
        "p": _p_values(difference, deviations),
    }
    return Comparison(
        a=_side_name(left),
        b=_side_name(right),
        seeds=(len(left), len(right)),
        identities=len(identities),
        queries=len(place),
        table=pd.DataFrame(columns, index=pd.Index(MEASURES, name="measure")),
        **_found_by(left, right),
    )


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's correction for several comparisons: adjusted p-values, in the order given.

    The chance that any true "no difference" among them falls below a level is at most that level
    (Holm, Scandinavian Journal of Statistics 1979).
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    stepped = np.maximum.accumulate(values[order] * factors)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class _Ranking:
    """How one run ranked the queries of its test split."""

    name: str
    record: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, source: Source) -> _Ranking:
        if not isinstance(source, str | Path):
            return cls(_record_name(source.record), source.record, source.queries())
        path = Path(source)
        record_path, queries_path = path / "metrics.json", path / "queries.npz"
        if path.suffix == ".json":
            record_path, queries_path = path, path.with_suffix(".npz")
        record = _read_record(record_path)
        return cls(_record_name(record), record, _read_queries(queries_path))

    @property
    def identities(self) -> np.ndarray:
        return self.arrays["query_identities"]

    def require_same_queries(self, other: _Ranking) -> None:
        """A :class:`DataError` unless ``other`` answers the same queries from the same gallery."""
        for field, name in SAME.items():
            mine, theirs = self.record.get(field), other.record.get(field)
            if mine != theirs:
                raise DataError(
                    f"{self.name} and {other.name} rank different {name} ({mine} and {theirs}); "
                    "only runs on the same queries and gallery can be compared."
                )
        if not np.array_equal(self.identities, other.identities):
            raise DataError(
                f"{self.name} and {other.name} have different queries; "
                "evaluate both on the same split again."
            )

    def scores(self) -> np.ndarray:
        """What each query contributes to every measure, (Q, 5) in percent; a query without a match
        in the gallery contributes nothing."""
        first = self.arrays["first_rank"]
        columns = [(first > 0) & (first <= rank) for rank in (1, 5, 10)]
        columns.append(self.arrays["average_precision"])
        columns.append(self.arrays["inverse_negative_penalty"])
        return 100 * np.stack(columns, axis=1).astype(float)

    def sums(self, place: np.ndarray, count: int) -> np.ndarray:
        """:meth:`scores` summed over the queries of each of ``count`` identities, (I, 5)."""
        totals = np.zeros((count, len(MEASURES)))
        np.add.at(totals, place, self.scores())
        return totals


def _several(side: Source | Sequence[Source], name: str) -> list[Source]:
    sources = list(side) if isinstance(side, list | tuple) else [side]
    if not sources:
        raise ConfigurationError(f"side {name} holds no run; give at least one.")
    return sources  # type: ignore[return-value]  # a str or Path is no list or tuple


def _record_name(record: dict[str, Any]) -> str:
    method = record.get("method", "a run")
    return f"{method} on {record.get('dataset', 'unknown data')}, seed {record.get('seed', '?')}"


def _side_name(side: list[_Ranking]) -> str:
    return str(side[0].record.get("method", "a run"))


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist; name a run's folder or its run file.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a readable run file ({error}); train again.") from error
    if not isinstance(record, dict) or "data_fingerprint" not in record:
        raise RunError(f"{path} is not a run file (data_fingerprint is missing); train again.")
    return record


def _read_queries(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as arrays:
            queries = dict(arrays)
    except FileNotFoundError as error:
        raise RunError(
            f"{path} does not exist; runs of an earlier version have none: train the run again."
        ) from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is not a readable npz file ({error}); train again.") from error
    missing = [name for name in QUERIES if name not in queries]
    if missing:
        raise RunError(f"{path} lacks {', '.join(missing)}; train the run again.")
    lengths = {len(queries[name]) for name in QUERIES}
    if len(lengths) != 1 or 0 in lengths:
        raise RunError(f"{path} holds arrays of different or no length; train the run again.")
    return queries


def _resampled_differences(
    sums_a: np.ndarray,
    sums_b: np.ndarray,
    per_identity: np.ndarray,
    resamples: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Differences of the means in ``resamples`` bootstrap samples, (B, 5).

    ``sums_a`` is (seeds, identities, 5), ``per_identity`` the number of queries of each identity.
    The same identities are drawn for both sides: that is what makes the comparison paired.
    """
    count = len(per_identity)
    identity_draws = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = identity_draws / (identity_draws @ per_identity)[:, None]
    two_levels = min(len(sums_a), len(sums_b)) > 1
    sides = []
    for sums in (sums_a, sums_b):
        by_seed = np.stack([weights @ of_seed for of_seed in sums], axis=1)  # (B, S, 5)
        if two_levels:
            seed_weights = _draw_seeds(len(sums), resamples, generator)
            sides.append(np.einsum("bs,bsm->bm", seed_weights, by_seed))
        else:
            sides.append(by_seed.mean(1))
    return sides[0] - sides[1]


def _draw_seeds(seeds: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Weights of the seeds in each sample, (B, S): S - 1 drawn with replacement, which gives the
    mean of S seeds its unbiased variance."""
    draws = generator.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=resamples)
    return draws / (seeds - 1)


def _one_level_factor(identities: int) -> float:
    """What the deviations of a bootstrap over identities are multiplied by: the variance without
    bias, and Student's t for the normal quantile, which matters where identities are few."""
    if identities < 2:
        return 1.0
    quantile = (1 + LEVEL) / 2
    widened = stats.t.ppf(quantile, identities - 1) / stats.norm.ppf(quantile)
    return float(widened * np.sqrt(identities / (identities - 1)))


def _two_level_factor(
    sums_a: np.ndarray, sums_b: np.ndarray, per_identity: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """What the deviations of a bootstrap of two levels are multiplied by, (5,); see
    :func:`compare`."""
    counted = drawn.var(0)
    interaction = np.zeros(len(MEASURES))
    squares = np.zeros(len(MEASURES))
    for sums in (sums_a, sums_b):
        seeds = len(sums)
        of_mean = (sums.sum(1) / per_identity.sum()).var(0, ddof=1) / seeds
        squares += of_mean**2 / (seeds - 1)
        interaction += _interaction_variance(sums, per_identity)
    variance = np.maximum(counted - 2 * interaction, counted / 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(squares > 0, variance**2 / squares, np.inf)
        shrunk = np.where(counted > 0, np.sqrt(variance / counted), 1.0)
    quantile = (1 + LEVEL) / 2
    widened: np.ndarray = stats.t.ppf(quantile, np.maximum(freedom, 1.0))
    return shrunk * widened / stats.norm.ppf(quantile)


def _interaction_variance(sums: np.ndarray, per_identity: np.ndarray) -> np.ndarray:
    """The share of the variance of a side's mean that is peculiar to one seed and one identity,
    (5,): the residual of a two-way analysis of variance without replication."""
    seeds, identities, _ = sums.shape
    scores = sums * identities / per_identity.sum()  # their mean is the measure
    of_identity = scores.mean(0)
    of_seed = scores.mean(1, keepdims=True)
    residual = scores - of_identity - of_seed + of_identity.mean(0)
    squares = (residual**2).sum((0, 1))
    freedom = max(1, (seeds - 1) * (identities - 1))
    return squares / freedom / (seeds * identities)


def _p_values(difference: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Two-sided p of "no difference": how often a deviation is as large as the difference. Never
    zero: the sample itself counts as one of the draws."""
    as_large = np.abs(deviations) >= np.abs(difference)
    return (1 + as_large.sum(0)) / (1 + len(deviations))


def _found_by(left: list[_Ranking], right: list[_Ranking]) -> dict[str, float]:
    """Queries with a right image at rank 1 on one side, on both, on neither: means over pairs."""
    found_a = np.stack([ranking.arrays["first_rank"] == 1 for ranking in left]).astype(float)
    found_b = np.stack([ranking.arrays["first_rank"] == 1 for ranking in right]).astype(float)
    both = float((found_a @ found_b.T).mean())
    only_a = float(found_a.sum(1).mean()) - both
    only_b = float(found_b.sum(1).mean()) - both
    queries = found_a.shape[1]
    return {
        "only_a": only_a,
        "only_b": only_b,
        "both": both,
        "neither": queries - both - only_a - only_b,
    }
