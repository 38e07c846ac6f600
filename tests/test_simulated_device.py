"""The simulated GPU keeps places apart and counts waits as a real one would."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.simulated_device import SimulatedDevice


@pytest.fixture
def device():
    with SimulatedDevice() as device:
        yield device


@pytest.fixture
def here():
    return torch.arange(6.0).view(2, 3)


@pytest.fixture
def there(device, here):
    """The same on the device; getting it there is forgotten."""
    moved = here.to("cuda")
    device.waits.clear()
    return moved


# Places


def test_a_tensor_says_where_it_is(here, there):
    assert there.device == torch.device("cuda", 0)
    assert here.device == torch.device("cpu")
    assert there.is_cuda
    assert not here.is_cuda
    assert there.cpu().device == torch.device("cpu")
    assert not there.cpu().is_cuda


def test_what_is_made_of_it_is_there_too(there):
    made = [there.T, there[0], there + 1, there.double(), there.detach(), torch.zeros_like(there)]
    made += [there.new_ones(3), torch.cat([there, there]), F.layer_norm(there, (3,))]
    made += there.unbind()
    assert all(tensor.is_cuda for tensor in made)


def test_a_new_tensor_is_where_it_is_asked_for(there):
    assert torch.ones(2, device=there.device).is_cuda
    assert torch.tensor([1.0], device="cuda").is_cuda
    assert torch.arange(3, device="cuda:0").is_cuda
    assert not torch.ones(2).is_cuda
    assert not torch.ones(2, device="cpu").is_cuda
    assert not torch.zeros_like(there, device="cpu").is_cuda


def test_moving_copies_and_staying_does_not(here, there):
    there.add_(1)
    assert here[0, 0] == 0
    assert there.to("cuda") is there
    assert here.cpu() is here
    back = there.cpu()
    there.add_(1)
    assert back[0, 0] == 1


def test_a_module_moves_with_its_parameters(device, there):
    layer = nn.Linear(3, 2).to("cuda")
    assert layer.weight.is_cuda
    assert layer(there).is_cuda
    assert not layer.cpu().weight.is_cuda


def test_like_another_tensor_means_where_that_one_is(here, there):
    assert here.to(there).is_cuda
    assert not there.to(here).is_cuda


MIXED = {
    "sum": lambda here, there: here + there,
    "sum in place": lambda here, there: there.add_(here),
    "product": lambda here, there: there @ here.T,
    "list": lambda here, there: torch.cat([there, here]),
    "choice": lambda here, there: torch.where(there > 0, there, here),
    "mask": lambda here, there: there.masked_fill(here > 0, 1.0),
    "rows": lambda here, there: there.index_select(0, torch.tensor([0])),
    "table": lambda here, there: F.embedding(torch.tensor([1]), there),
    "attention": lambda here, there: F.scaled_dot_product_attention(there, there, here),
    "indices there": lambda here, there: here[torch.zeros(1, dtype=torch.long, device="cuda")],
    "written": lambda here, there: torch.zeros(()).add_(there.sum()),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("name", MIXED)
def test_two_places_in_one_operation_are_refused(here, there, name, mode):
    with mode(), pytest.raises(RuntimeError, match="same device"):
        MIXED[name](here, there)


def test_in_a_backward_pass_too(device):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows):
            return rows.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.ones(3)

    rows = torch.ones(3, device="cuda", requires_grad=True)
    loss = Wrong.apply(rows).sum()
    with pytest.raises(RuntimeError, match="same device"):
        loss.backward()


def test_a_number_of_the_cpu_may_join(here, there):
    torch.testing.assert_close((there * torch.tensor(2.0)).cpu(), here * 2)
    assert (torch.tensor(2.0) * there).is_cuda


def test_numpy_and_the_generators_of_the_cpu_are_refused(there):
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device="cuda", generator=torch.Generator())
    with pytest.raises(RuntimeError, match="generator"):
        there.uniform_(generator=torch.Generator())


def test_gradients_come_back_to_where_the_tensor_is(device):
    rows = torch.ones(3, requires_grad=True)
    (rows.to("cuda") * 2).sum().backward()
    assert not rows.grad.is_cuda
    torch.testing.assert_close(rows.grad, torch.full((3,), 2.0))


def test_a_checkpoint_computes_again_in_the_same_place(device, there):
    layer = nn.Linear(3, 3).to("cuda")
    places = []

    def block(rows):
        places.append(rows.is_cuda)
        return F.silu(layer(rows))

    checkpoint(block, there, use_reentrant=False).sum().backward()
    assert places == [True, True]
    assert layer.weight.grad.is_cuda


def test_memory_that_is_used_again_is_not_taken_for_the_devices(device):
    for _ in range(2000):
        torch.ones(7, device="cuda")
        assert not torch.ones(7).is_cuda


def test_a_solver_leaves_what_plain_training_leaves(device, here):
    weights = []
    for place in ("cpu", "cuda"):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2).to(place)
        solver = torch.optim.Adam(layer.parameters(), lr=0.1)
        rows = here.to(place)
        for _ in range(3):
            solver.zero_grad()
            layer(rows).square().sum().backward()
            solver.step()
        weights.append(layer.weight.detach().cpu())
    torch.testing.assert_close(weights[0], weights[1])


# Waits

WAITS = {
    "item": lambda there: there.sum().item(),
    "item of a choice": lambda there: 1 if there.sum() > 3 else 0,
    "item of a number": lambda there: float(there[0, 0]),
    "tolist": lambda there: there.tolist(),
    "copy back": lambda there: there.cpu(),
    "copy back into": lambda there: torch.zeros(2, 3).copy_(there),
    "mask as index": lambda there: there[there > 2],
    "mask as index of a target": lambda there: there.index_put_((there > 2,), there[0, :1]),
    "nonzero": lambda there: there.nonzero(),
    "masked_select": lambda there: there.masked_select(there > 2),
    "unique": lambda there: there.unique(),
    "upload": lambda there: torch.ones(3).to(there.device),
    "upload into": lambda there: there.copy_(torch.ones(3)),
    "upload of a list": lambda there: torch.tensor([1.0], device="cuda"),
    "upload of indices": lambda there: there[torch.tensor([0])],
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_counted(device, there, name, mode):
    with mode():
        WAITS[name](there)
    (kind,) = device.waits
    assert name.startswith(kind)
    assert device.waits[kind] == 1


def test_the_place_of_a_wait_is_named(device, there):
    there.sum().item()
    (place,) = [place for place in device.places if place.startswith("item")]
    assert "test_simulated_device.py" in place


NO_WAITS = {
    "arithmetic": lambda there: (there * 2 + 1).softmax(0) @ there.T,
    "choice": lambda there: torch.where(there > 2, there, 0.0),
    "a number where a mask is": lambda there: there.__setitem__(there > 2, 0.0),
    "made there": lambda there: torch.arange(3, device=there.device) + there,
    "sent ahead": lambda there: torch.ones(3).to(there.device, non_blocking=True) + there,
    "pinned": lambda there: torch.ones(3).pin_memory().to("cuda", non_blocking=True),
    "shape": lambda there: there.view(len(there), -1)[:, : there.shape[1] - 1],
    "value of the CPU": lambda there: torch.ones(3).sum().item(),
}


@pytest.mark.parametrize("name", NO_WAITS)
def test_what_needs_no_wait_counts_none(device, there, name):
    NO_WAITS[name](there)
    assert not device.waits
