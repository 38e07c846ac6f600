"""CSKT gives the numbers of the authors' release."""

import pytest
import torch

from cskt.losses import itc_loss, sdm_loss
from cskt.model.inputs import fit_captions
from cskt.model.recording import Record
from cskt.model.reference import reference_parameters

pytestmark = pytest.mark.numerics


def assert_close(value, expected, relative):
    """Within a share of the largest expected value."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
    else:
        value = torch.as_tensor(value, dtype=torch.float64)
    expected = torch.as_tensor(expected, dtype=value.dtype)
    assert (value - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize(
    ("dtype", "relative"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["fp64", "fp32"]
)
def test_features_losses_and_every_gradient(golden, dtype, relative):
    model = golden.model(dtype)
    expected = golden.float64 if dtype == torch.float64 else golden.float32
    image_features, text_features = model(golden.images(dtype), golden.token_ids)
    assert_close(image_features, expected["image_features"], relative)
    assert_close(text_features, expected["text_features"], relative)
    assert_close(itc_loss(image_features, text_features), expected["itc_loss"], relative)
    loss = sdm_loss(image_features, text_features, golden.identities)
    assert_close(loss, expected["sdm_loss"], relative)
    loss.backward()
    gradients = {}
    for name, parameter in reference_parameters(model).items():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.norm().item()
    assert gradients == pytest.approx(expected["grad_norms_sdm"], rel=relative)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_every_block(golden, tower):
    model = golden.model()
    encode = model.encode_image if tower == "image" else model.encode_text
    inputs = golden.images() if tower == "image" else golden.token_ids
    record = Record()
    with torch.no_grad():
        recorded = encode(inputs, record=record)
        direct = encode(inputs)
    assert_close(direct, recorded, 1e-12)  # computing less must change nothing
    blocks = golden.float64["blocks"][tower]
    for x, expected in zip(record.outputs.values(), blocks, strict=True):
        assert x.shape[1] == expected["len"]
        first = x[:, 0].norm(dim=-1)
        last = x[:, -1].norm(dim=-1)
        assert_close(x.norm(), expected["l2_of_whole_tensor"], 1e-9)
        assert_close(first, expected["l2_first_token_per_sample"], 1e-9)
        assert_close(last, expected["l2_last_token_per_sample"], 1e-9)


def released_optimizer(parameters):
    """Adam as the release sets it up: biases apart from weights."""
    groups = []
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        if "bias" in name:
            groups.append({"params": [parameter], "lr": 6e-4, "weight_decay": 0.0})
        else:
            groups.append({"params": [parameter], "lr": 3e-4, "weight_decay": 4e-5})
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-3)


def test_six_steps_of_adam_as_released(golden):
    model, images = golden.model(), golden.images()
    parameters = reference_parameters(model)
    optimizer = released_optimizer(parameters)
    trace = []
    for _ in range(6):
        optimizer.zero_grad()
        image_features, text_features = model(images, golden.token_ids)
        loss = sdm_loss(image_features, text_features, golden.identities)
        loss.backward()
        optimizer.step()
        trace.append(loss.item())
    expected = golden.float64
    norms = {}
    for name in expected["param_l2_after_trace"]:
        norms[name] = parameters[name].norm().item()
    assert trace == pytest.approx(expected["adam_trace_sdm_lr3e-4"], rel=1e-9)
    assert norms == pytest.approx(expected["param_l2_after_trace"], rel=1e-9)


def test_counts_and_tokens(golden):
    model = golden.model(torch.float32)
    assert model.num_trainable == golden.n_trainable
    assert model.num_total == golden.n_total
    assert model.tokenize(golden.captions).tolist() == golden.ids_before


def test_prompt_insertion_table(insertion_table):
    for row in insertion_table:
        ids, end = fit_captions(torch.tensor([row["before"]]), 49407, 77 - 8)
        kept = ids[0].tolist()
        prompts = row["after"][1:9]
        assert kept[:1] + prompts + kept[1:] == row["after"]
        assert int(end) + 8 == row["eos_after"]
        assert int(end) - 1 == row["kept_words"]
