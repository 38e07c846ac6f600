"""CSKT gives the numbers of the authors' release."""

import pytest
import torch

from cskt.losses import itc_loss, sdm_loss
from cskt.model.inputs import fit_captions
from cskt.model.recording import Record
from cskt.model.reference import reference_parameters

pytestmark = pytest.mark.numerics


def close(value, expected, relative):
    value = (
        value.detach()
        if isinstance(value, torch.Tensor)
        else torch.as_tensor(value, dtype=torch.float64)
    )
    expected = torch.as_tensor(expected, dtype=value.dtype)
    assert (value - expected).abs().max() <= relative * expected.abs().max()


PRECISIONS = [(torch.float64, "float64", 1e-9), (torch.float32, "float32", 1e-4)]


@pytest.mark.parametrize(("dtype", "key", "relative"), PRECISIONS)
def test_features_losses_and_every_gradient(golden, dtype, key, relative):
    model, expected = golden.model(dtype), getattr(golden, key)
    image_features, text_features = model(golden.images(dtype), golden.token_ids)
    close(image_features, expected["image_features"], relative)
    close(text_features, expected["text_features"], relative)
    close(itc_loss(image_features, text_features), expected["itc_loss"], relative)
    loss = sdm_loss(image_features, text_features, golden.identities)
    close(loss, expected["sdm_loss"], relative)
    loss.backward()
    gradients = {
        n: p.grad.norm().item()
        for n, p in reference_parameters(model).items()
        if p.grad is not None
    }
    assert gradients == pytest.approx(expected["grad_norms_sdm"], rel=relative)


def test_every_block(golden):
    model = golden.model()
    for tower, encode, inputs in (
        ("image", model.encode_image, golden.images()),
        ("text", model.encode_text, golden.token_ids),
    ):
        record = Record()
        with torch.no_grad():
            recorded, direct = encode(inputs, record=record), encode(inputs)
        close(direct, recorded, 1e-12)  # computing less must change nothing
        for x, expected in zip(
            record.outputs.values(), golden.float64["blocks"][tower], strict=True
        ):
            assert x.shape[1] == expected["len"]
            close(x.norm(), expected["l2_of_whole_tensor"], 1e-9)
            close(x[:, 0].norm(dim=-1), expected["l2_first_token_per_sample"], 1e-9)
            close(x[:, -1].norm(dim=-1), expected["l2_last_token_per_sample"], 1e-9)


def test_six_steps_of_adam_as_released(golden):
    model, expected = golden.model(), golden.float64
    images, parameters = golden.images(), reference_parameters(model)
    weights, biases = dict(lr=3e-4, weight_decay=4e-5), dict(lr=6e-4, weight_decay=0.0)
    groups = [
        {"params": [p], **(biases if "bias" in n else weights)}
        for n, p in parameters.items()
        if p.requires_grad
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-3)
    trace = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = sdm_loss(*model(images, golden.token_ids), golden.identities)
        loss.backward()
        optimizer.step()
        trace.append(loss.item())
    assert trace == pytest.approx(expected["adam_trace_sdm_lr3e-4"], rel=1e-9)
    norms = {name: parameters[name].norm().item() for name in expected["param_l2_after_trace"]}
    assert norms == pytest.approx(expected["param_l2_after_trace"], rel=1e-9)


def test_counts_and_tokens(golden):
    model = golden.model(torch.float32)
    assert (model.num_trainable, model.num_total) == (golden.n_trainable, golden.n_total)
    assert model.tokenize(golden.captions).tolist() == golden.ids_before


def test_prompt_insertion_table(insertion_table):
    for row in insertion_table:
        ids, end = fit_captions(torch.tensor([row["before"]]), 49407, 77 - 8)
        kept = ids[0].tolist()
        assert int(end) + 8 == row["eos_after"]
        assert kept[:1] + row["after"][1:9] + kept[1:] == row["after"]
        assert int(end) - 1 == row["kept_words"]
