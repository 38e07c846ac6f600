"""SDM and ITC: what they measure, beyond the golden figures of tests/model/test_golden.py."""

from dataclasses import astuple, dataclass

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from cskt.errors import CSKTError
from cskt.losses import itc_loss, sdm_loss

pytestmark = pytest.mark.numerics


@dataclass
class Batch:
    images: torch.Tensor
    texts: torch.Tensor
    identities: torch.Tensor

    def sdm(self, **settings):
        return sdm_loss(self.images, self.texts, self.identities, **settings)


def batch(size, seed=0):
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(2, size, 6, generator=random, dtype=torch.float64)
    identities = torch.randint(0, 3, (size,), generator=random)
    return Batch(features[0], features[1], identities)


sizes = st.integers(1, 8)
seeds = st.integers(0, 1000)


@given(sizes, seeds)
def test_sdm_is_a_divergence(size, seed):
    loss = batch(size, seed).sdm()
    assert torch.isfinite(loss)
    assert loss > -1e-6  # up to the 1e-8 inside the logarithm


@given(sizes, seeds)
def test_both_losses_are_symmetric(size, seed):
    images, texts, identities = astuple(batch(size, seed))
    swapped = sdm_loss(texts, images, identities)
    torch.testing.assert_close(swapped, sdm_loss(images, texts, identities))
    torch.testing.assert_close(itc_loss(texts, images), itc_loss(images, texts))


@given(sizes, seeds)
def test_sdm_does_not_depend_on_lengths_order_and_names(size, seed):
    pairs = batch(size, seed)
    expected = pairs.sdm()
    longer = Batch(3 * pairs.images, pairs.texts / 7, pairs.identities)
    torch.testing.assert_close(longer.sdm(), expected)
    renamed = Batch(pairs.images, pairs.texts, 100 - pairs.identities)
    torch.testing.assert_close(renamed.sdm(), expected)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    shuffled = Batch(pairs.images[order], pairs.texts[order], pairs.identities[order])
    torch.testing.assert_close(shuffled.sdm(), expected)


def test_perfect_alignment_costs_nothing_and_a_swap_costs():
    features = torch.eye(4, dtype=torch.float64)
    identities = torch.arange(4)
    assert sdm_loss(features, features, identities) < 1e-6
    assert itc_loss(features, features) < 1e-6
    assert sdm_loss(features, features.flip(0), identities) > 10


def test_of_the_same_identity_twice_equal_similarity_to_both_is_sdms_optimum():
    identities = torch.tensor([0, 0, 1, 1])
    features = torch.eye(4, dtype=torch.float64)[identities]
    assert sdm_loss(features, features, identities) < 1e-6
    assert itc_loss(features, features) > 0.6


def test_a_higher_temperature_costs_less():
    pairs = batch(5)
    assert pairs.sdm(temperature=0.1) < pairs.sdm()


def test_the_loss_is_taken_in_float32_under_autocast():
    pairs = batch(5)
    half = Batch(pairs.images.bfloat16(), pairs.texts.bfloat16(), pairs.identities)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = half.sdm()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), pairs.sdm(), rtol=0.05, atol=0.05)


def test_bad_shapes():
    pairs = batch(4)
    with pytest.raises(CSKTError, match="must both be"):
        itc_loss(pairs.images, pairs.texts[:3])
    with pytest.raises(CSKTError, match=r"identities must be \(4,\)"):
        sdm_loss(pairs.images, pairs.texts, pairs.identities[:2])
