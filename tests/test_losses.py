"""SDM and ITC: what they measure, beyond the golden figures of tests/model/test_golden.py."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from cskt.errors import CSKTError
from cskt.losses import itc_loss, sdm_loss

pytestmark = pytest.mark.numerics


def batch(size, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, size, 6, generator=generator, dtype=torch.float64)
    return features[0], features[1], torch.randint(0, 3, (size,), generator=generator)


@given(st.integers(1, 8), st.integers(0, 1000))
def test_symmetric_scale_free_and_independent_of_order_and_names(size, seed):
    images, texts, identities = batch(size, seed)
    loss = sdm_loss(images, texts, identities)
    assert (
        torch.isfinite(loss) and loss > -1e-6
    )  # a divergence, up to the 1e-8 inside the logarithm
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    for same in (
        sdm_loss(texts, images, identities),
        sdm_loss(3 * images, texts / 7, identities),
        sdm_loss(images[order], texts[order], identities[order]),
        sdm_loss(images, texts, 100 - identities),
    ):
        torch.testing.assert_close(same, loss)
    torch.testing.assert_close(itc_loss(texts, images), itc_loss(images, texts))


def test_perfect_alignment_costs_nothing_and_a_swap_costs():
    features, identities = torch.eye(4, dtype=torch.float64), torch.arange(4)
    assert sdm_loss(features, features, identities) < 1e-6
    assert itc_loss(features, features) < 1e-6
    assert sdm_loss(features, features.flip(0), identities) > 10
    pairs = torch.tensor(
        [0, 0, 1, 1]
    )  # the same identity twice: equal similarity to both is the optimum
    assert sdm_loss(features[pairs], features[pairs], pairs) < 1e-6
    assert itc_loss(features[pairs], features[pairs]) > 0.6


def test_temperature_and_low_precision():
    images, texts, identities = batch(5, 0)
    assert sdm_loss(images, texts, identities, temperature=0.1) < sdm_loss(
        images, texts, identities
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = sdm_loss(images.bfloat16(), texts.bfloat16(), identities)
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half.double(), sdm_loss(images, texts, identities), rtol=0.05, atol=0.05
    )


def test_bad_shapes():
    images, texts, identities = batch(4, 0)
    with pytest.raises(CSKTError, match="must both be"):
        itc_loss(images, texts[:3])
    with pytest.raises(CSKTError, match=r"identities must be \(4,\)"):
        sdm_loss(images, texts, identities[:2])
