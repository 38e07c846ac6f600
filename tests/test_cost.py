"""What an evaluation costs: FLOPs that agree with what one counts by hand, and the times of its
steps."""

import time

import pytest
import torch

from benchmarks.costs import Cost
from cskt.config import CSKTConfig
from cskt.cost import Stopwatch, count_flops
from cskt.data.datasets import load_dataset
from cskt.evaluation import evaluate, evaluate_queries, load_split, ready
from cskt.runs import build_model
from tests.tiny_runs import tiny_config, tiny_model


def test_a_multiplication_and_an_addition_are_two_operations():
    rows = torch.ones(3, 5)
    columns = torch.ones(5, 7)
    assert count_flops(lambda: rows @ columns) == 2 * 3 * 5 * 7
    assert count_flops(lambda: rows + 1) == 0


def test_what_is_kept_after_the_first_call_is_not_counted():
    kept = []

    def call():
        if not kept:
            kept.append(torch.ones(4, 4) @ torch.ones(4, 4))
        return kept[0] @ torch.ones(4, 1)

    assert count_flops(call) == 2 * 4 * 4


def flops_of_inference(model, encode, inputs):
    """What one call costs the fused model."""
    with torch.inference_mode(), ready(model, "fp32"):
        return count_flops(lambda: encode(inputs))


@pytest.mark.parametrize("depth", [0, 2])
def test_an_image_costs_what_its_matrix_products_cost_by_hand(depth):
    """``benchmarks/costs.py`` leaves out the last projection."""
    model = tiny_model(CSKTConfig(prompt_depth=depth))
    image = torch.zeros(1, 3, 32, 16)
    by_hand = Cost(model, "cskt", "fp32", training=False)
    by_hand.add_image(1)
    projection = 2 * model.backbone.visual.proj.numel()
    counted = flops_of_inference(model, model.encode_image, image)
    assert counted == by_hand.flops + projection


def test_a_query_costs_more_the_longer_it_is():
    """By hand attention is counted up to the diagonal, by torch as a rectangle, and the last
    projection is left out: no other difference."""
    model = tiny_model(CSKTConfig())
    counted = []
    for text in ("a man", "a man in a red jacket and blue jeans with a black bag"):
        tokens = model.tokenize([text])
        flops = flops_of_inference(model, model.encode_text, tokens)
        by_hand = Cost(model, "cskt", "fp32", training=False)
        by_hand.add_text(tokens.argmax(dim=1).numpy())
        assert by_hand.flops < flops < 1.1 * by_hand.flops
        counted.append(flops)
    short, long = counted
    assert long > 3 * short


def test_a_stopwatch_adds_up_the_blocks_of_a_step():
    watch = Stopwatch()
    start = time.perf_counter()
    for name in ("encode", "rank", "encode"):
        with watch.step(name):
            sum(range(10_000))
    elapsed = time.perf_counter() - start
    assert set(watch.seconds) == {"encode", "rank"}
    assert all(seconds > 0 for seconds in watch.seconds.values())
    assert sum(watch.seconds.values()) <= elapsed


@pytest.fixture
def evaluated(tiny_data, own_cache):
    dataset = load_dataset("CUHK-PEDES", tiny_data)
    model = build_model(tiny_config(tiny_data))
    return model, load_split(model, dataset.test)


def test_the_cost_of_an_evaluation_is_of_each_query_and_each_image(evaluated):
    model, loaded = evaluated
    _, _, cost = evaluate_queries(model, loaded, "fp32")
    assert cost["queries"] == len(loaded.tokens)
    assert cost["images"] == len(loaded.images)
    seconds = cost["seconds"]
    steps = seconds["encode queries"] + seconds["encode gallery"] + seconds["rank"]
    assert seconds["whole"] == pytest.approx(steps)
    encoding = cost["per_query"]["seconds"] * cost["queries"]
    assert encoding == pytest.approx(seconds["encode queries"])
    encoding = cost["per_image"]["seconds"] * cost["images"]
    assert encoding == pytest.approx(seconds["encode gallery"])
    lengths = loaded.tokens.ne(0).sum(1)
    assert cost["per_query"]["tokens"] == lengths.sort().values[len(lengths) // 2]


def test_flops_do_not_depend_on_the_clock_and_metrics_not_on_being_timed(evaluated):
    model, loaded = evaluated
    metrics, _, cost = evaluate_queries(model, loaded, "fp32")
    _, _, again = evaluate_queries(model, loaded, "fp32")
    assert metrics == evaluate(model, loaded, "fp32")
    for what in ("per_query", "per_image"):
        assert cost[what]["flops"] == again[what]["flops"] > 0
