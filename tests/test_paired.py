"""Paired comparison of runs: hand-made ranks, symmetries, another library's result, coverage."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from cskt import analysis
from cskt.errors import ConfigurationError, DataError, RunError
from cskt.paired import compare, holm


class Stored:
    """A run as :func:`compare` needs it."""

    def __init__(self, first_rank, identities, method="cskt", seed=0, **record):
        first_rank = np.asarray(first_rank, dtype=np.int32)
        precision = np.where(first_rank > 0, 1 / np.maximum(first_rank, 1), 0)
        self.record = {
            "dataset": "SynthPEDES-A",
            "data_fingerprint": "one",
            "split": "test",
            "method": method,
            "seed": seed,
            **record,
        }
        self.arrays = {
            "query_identities": np.asarray(identities),
            "first_rank": first_rank,
            "average_precision": precision.astype(np.float32),
            "inverse_negative_penalty": precision.astype(np.float32),
        }

    def queries(self):
        return self.arrays

    def save(self, folder):
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(self.record), encoding="utf-8")
        np.savez(folder / "queries.npz", **self.arrays)
        return folder


def one_query_each(first_rank, **record):
    return Stored(first_rank, np.arange(len(first_rank)), **record)


def test_it_is_reached_through_the_analyses():
    assert analysis.compare is compare
    assert analysis.holm is holm


def test_hand_made_ranks():
    a = Stored([1, 1, 2, 0], [7, 7, 8, 9], method="cskt")
    b = Stored([1, 3, 6, 1], [7, 7, 8, 9], method="full")
    result = compare(a, b)
    assert (result.a, result.b) == ("cskt", "full")
    assert (result.queries, result.identities, result.seeds) == (4, 3, (1, 1))
    assert list(result.table["a"]) == pytest.approx([50, 75, 75, 62.5, 62.5])
    assert list(result.table["b"])[:3] == [50, 75, 100]
    assert list(result.table["difference"])[:3] == [0, 0, -25]
    found = (result.only_a, result.only_b, result.both, result.neither)
    assert found == (1, 1, 1, 1)


def test_a_query_without_a_match_is_never_found():
    nothing = one_query_each([0, 0, 0])
    assert list(compare(nothing, nothing).table["a"]) == [0] * 5


def test_a_run_against_itself_differs_by_nothing():
    run = one_query_each([1, 2, 3, 1, 9])
    table = compare(run, run).table
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (table["p"] == 1).all()
    assert not compare(run, run).told_apart


def test_a_difference_of_every_query_is_certain():
    found, missed = one_query_each([1] * 30), one_query_each([20] * 30)
    row = compare(found, missed).table.loc["R@1"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((100, 100, 100))
    assert row["p"] < 0.001
    assert compare(found, missed).told_apart


@given(
    ranks=some.lists(
        some.tuples(some.integers(0, 12), some.integers(0, 12), some.integers(0, 4)),
        min_size=2,
        max_size=40,
    )
)
def test_swapping_the_sides_flips_the_sign(ranks):
    ranks_a, ranks_b, identities = np.array(ranks).T
    a, b = Stored(ranks_a, identities), Stored(ranks_b, identities)
    one, other = compare(a, b, 200), compare(b, a, 200)
    assert one.table["difference"].to_numpy() == pytest.approx(-other.table["difference"])
    assert one.table["low"].to_numpy() == pytest.approx(-other.table["high"])
    assert one.table["p"].to_numpy() == pytest.approx(other.table["p"])
    assert (one.only_a, one.only_b) == pytest.approx((other.only_b, other.only_a))


def test_the_interval_is_the_paired_t_interval_where_that_holds():
    """Many identities with one query each: scipy's paired t interval is the oracle."""
    generator = np.random.default_rng(0)
    first_a = np.where(generator.random(800) < 0.5, 1, 7)
    first_b = np.where(generator.random(800) < 0.4, 1, 7)
    row = compare(one_query_each(first_a), one_query_each(first_b), 5000).table.loc["R@1"]
    oracle = stats.ttest_rel(100.0 * (first_a == 1), 100.0 * (first_b == 1))
    ends = oracle.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high), abs=0.3)
    assert row["p"] == pytest.approx(oracle.pvalue, abs=0.01)


def test_pairing_is_what_makes_the_interval_short():
    """Two models that fail on the same queries differ little, however hard the queries are."""
    generator = np.random.default_rng(1)
    first = np.where(generator.random(400) < 0.5, 1, 7)
    better = first.copy()
    better[np.flatnonzero(first == 7)[:12]] = 1
    row = compare(one_query_each(better), one_query_each(first)).table.loc["R@1"]
    assert row["difference"] == 3
    assert row["high"] - row["low"] < 4  # unpaired it would be about 14


def test_queries_of_one_identity_count_as_one_witness():
    """Ten copies of every query bring no more evidence."""
    generator = np.random.default_rng(2)
    first_a, first_b = generator.integers(1, 4, size=(2, 60))
    identities = np.arange(60)
    once = compare(Stored(first_a, identities), Stored(first_b, identities)).table
    copies = np.repeat(identities, 10)
    often = compare(
        Stored(np.repeat(first_a, 10), copies), Stored(np.repeat(first_b, 10), copies)
    ).table
    assert once[["low", "high"]].to_numpy() == pytest.approx(often[["low", "high"]].to_numpy())


def simulated_side(generator, hardness, shift, seeds, seed_spread):
    """Runs of one method in a simulated world: ``hardness`` (identities,) in logits."""
    identities = np.repeat(np.arange(len(hardness)), 4)
    runs = []
    for seed in range(seeds):
        of_seed = generator.normal(0, seed_spread) + generator.normal(0, 0.7, len(hardness))
        logits = (hardness + shift + of_seed)[identities]
        found = generator.random(len(identities)) < 1 / (1 + np.exp(-logits))
        runs.append(Stored(np.where(found, 1, 7), identities, seed=seed))
    return runs


def true_difference(spread_of_logits, shift):
    """R@1 points between the methods of a simulated world, by a fine grid of the normal."""
    quantiles = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000) * spread_of_logits
    return 100 * np.mean(1 / (1 + np.exp(-quantiles - shift)) - 1 / (1 + np.exp(-quantiles)))


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "seed_spread"), [(1, 0.0), (5, 0.15)])
def test_intervals_hold_the_truth_in_93_to_97_percent_of_500_worlds(seeds, seed_spread):
    truth = true_difference(np.sqrt(1.2**2 + 0.7**2 + seed_spread**2), 0.3)
    held = 0
    for world in range(500):
        generator = np.random.default_rng([seeds, world])
        hardness = generator.normal(0, 1.2, 100)
        a = simulated_side(generator, hardness, 0.3, seeds, seed_spread)
        b = simulated_side(generator, hardness, 0.0, seeds, seed_spread)
        row = compare(a, b, resamples=300, seed=world).table.loc["R@1"]
        held += row["low"] <= truth <= row["high"]
    assert 0.93 <= held / 500 <= 0.97


def test_seeds_that_scatter_widen_the_interval():
    alike = [one_query_each([1, 7] * 20, seed=seed) for seed in range(3)]
    apart = [one_query_each([1, 7] * 20, seed=0)]
    apart += [one_query_each([1, 1] * 20, seed=1), one_query_each([7, 7] * 20, seed=2)]
    narrow = compare(alike, alike).table.loc["R@1"]
    wide = compare(apart, alike).table.loc["R@1"]
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"] + 20


def test_the_sentence_says_what_it_speaks_of():
    found, missed = one_query_each([1] * 30), one_query_each([20] * 30)
    one = compare(found, missed).sentence()
    assert "+100.00 points of R@1" in one and "differ reliably" in one
    assert "other seeds may differ" in one
    several = compare([found, found], [missed, missed]).sentence()
    assert "2 and 2 seeds, 30 identities" in several


def test_folders_and_run_files_are_read(tmp_path):
    a, b = one_query_each([1, 1, 7]), one_query_each([1, 7, 7])
    folder = a.save(tmp_path / "a")
    b.save(tmp_path / "b")
    (tmp_path / "b" / "metrics.json").rename(tmp_path / "b.json")
    (tmp_path / "b" / "queries.npz").rename(tmp_path / "b.npz")
    assert compare(folder, tmp_path / "b.json").table.equals(compare(a, b).table)


def test_the_result_is_plain_values_for_json(tmp_path):
    values = compare(one_query_each([1, 7]), one_query_each([7, 7])).to_dict()
    assert json.loads(json.dumps(values))["table"]["R@1"]["difference"] == 50


@pytest.mark.parametrize("field", ["dataset", "data_fingerprint", "split"])
def test_runs_on_other_data_are_refused(field):
    a, b = one_query_each([1, 7]), one_query_each([1, 7], **{field: "another"})
    with pytest.raises(DataError, match="only runs on the same queries"):
        compare(a, b)


def test_runs_with_other_queries_are_refused():
    with pytest.raises(DataError, match="different queries"):
        compare(Stored([1, 7], [1, 2]), Stored([1, 7], [1, 3]))


def test_a_run_without_queries_is_named(tmp_path):
    folder = one_query_each([1, 7]).save(tmp_path / "old")
    (folder / "queries.npz").unlink()
    with pytest.raises(RunError, match=r"queries\.npz does not exist; .*train the run again"):
        compare(folder, folder)


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_damaged_queries_are_named(tmp_path, content):
    folder = one_query_each([1, 7]).save(tmp_path / "damaged")
    (folder / "queries.npz").write_bytes(content)
    with pytest.raises(RunError, match=r"queries\.npz is not a readable npz file"):
        compare(folder, folder)


def test_queries_that_lack_an_array_are_named(tmp_path):
    run = one_query_each([1, 7])
    del run.arrays["first_rank"]
    folder = run.save(tmp_path / "partial")
    with pytest.raises(RunError, match="lacks first_rank"):
        compare(folder, folder)


def test_what_is_no_run_is_named(tmp_path):
    (tmp_path / "note.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="is not a run file"):
        compare(tmp_path / "note.json", tmp_path / "note.json")
    with pytest.raises(RunError, match="does not exist; name a run's folder"):
        compare(tmp_path / "nowhere", tmp_path / "nowhere")


def test_an_empty_side_and_too_few_resamples_are_refused():
    run = one_query_each([1, 7])
    with pytest.raises(ConfigurationError, match="side b holds no run"):
        compare(run, [])
    with pytest.raises(ConfigurationError, match="at least 100"):
        compare(run, run, resamples=10)


def test_holm_by_hand():
    assert list(holm([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert list(holm([0.9, 0.8])) == [1.0, 1.0]
    assert list(holm([])) == []


@given(some.lists(some.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(values):
    adjusted = holm(values)
    assert (adjusted >= np.array(values)).all() and (adjusted <= 1).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
