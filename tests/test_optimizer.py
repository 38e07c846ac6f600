"""The released solver: groups, schedule, and its golden figures."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cskt.config import TrainConfig
from cskt.optimizer import make_optimizer, parameter_groups, schedule_factor

pytestmark = pytest.mark.numerics
GOLDEN = json.loads((Path(__file__).parent / "data" / "solver.json").read_text())


def test_groups_are_the_released_ones():
    names = [name for name in GOLDEN["groups"] if name]
    parameters = {name: nn.Parameter(torch.zeros(1)) for name in names}
    solver = {}
    for group in parameter_groups(parameters.items(), TrainConfig()):
        for name in names:
            if any(parameter is parameters[name] for parameter in group["params"]):
                solver[name] = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
    for name in names:
        released = GOLDEN["groups"][name]
        assert solver[name]["lr"] == released["lr"]
        assert solver[name]["weight_decay"] == released["weight_decay"]


def test_frozen_tensors_are_in_no_group():
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    groups = parameter_groups([("a.weight", frozen), ("a.bias", frozen)], TrainConfig())
    assert [group["params"] for group in groups] == [[], []]


def test_schedule_is_the_released_one():
    config = TrainConfig()
    optimizer, schedule = make_optimizer(nn.Linear(2, 2), config)
    for group in optimizer.param_groups:
        assert group["betas"] == (0.9, 0.999)
        assert group["eps"] == 1e-3
    weights, biases = optimizer.param_groups
    weight_rates = []
    bias_rates = []
    for _ in range(config.epochs):
        weight_rates.append(weights["lr"])
        bias_rates.append(biases["lr"])
        optimizer.step()
        schedule.step()
    released = GOLDEN["lr_by_epoch"]
    assert weight_rates == pytest.approx(released, rel=1e-9)
    assert bias_rates == pytest.approx([2 * rate for rate in released], rel=1e-9)


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (1, 5), (3, 3), (2, 1)])
def test_schedule_of_short_runs_stays_positive(epochs, warmup):
    factors = [schedule_factor(epoch, epochs, warmup) for epoch in range(epochs)]
    assert all(0 < factor <= 1 for factor in factors)


# The run folder
