"""Computing less, keeping less or fusing changes no number: against a plain model, in float64."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from benchmarks.plain import plain_encode_image, plain_encode_text
from cskt.config import CSKTConfig
from cskt.losses import sdm_loss
from cskt.model import CSKT
from cskt.model.recording import Record
from cskt.model.towers import Grid, attention, checkpointed

pytestmark = pytest.mark.numerics
# No word, exactly as many as fit with eight prompts, and more than fit.
CAPTIONS = ["a man in red", "", "word " * 67, "word " * 90]
IMAGES = torch.randn(4, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
LABELS = torch.tensor([0, 1, 1, 2])


@dataclass
class Setting:
    """A backbone, three blocks deep where nothing else is said, and CSKT's configuration."""

    config: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)


SETTINGS = {
    "cskt": Setting(),
    "one prompt": Setting({"prompt_length": 1}),
    "shallow": Setting({"prompt_depth": 1}),
    "two of three": Setting({"prompt_depth": 2}),
    "no prompts": Setting({"prompt_depth": 0}),
    "text to image": Setting({"vision_to_text": False}),
    "image to text": Setting({"text_to_vision": False}),
    "no text adapter": Setting({"text_adapter": False}),
    "no vision adapter": Setting({"vision_adapter": False}),
    "no direction": Setting({"text_to_vision": False, "vision_to_text": False}),
    "trained backbone": Setting({"train_backbone": True}),
    "eight prompts": Setting({"prompt_length": 4}),
    "deep vision": Setting(backbone={"text_layers": 2}),
    "deep text": Setting(backbone={"vision_layers": 2}),
    "gelu": Setting(backbone={"quick_gelu": False}),
    "layer scale": Setting(
        backbone={"vision": {"ls_init_value": 0.3}, "text": {"ls_init_value": 0.2}}
    ),
}
LORA = {"lora": Setting({"lora": True})}


def model_of(small_clip, setting=None):
    setting = setting or Setting()
    torch.manual_seed(3)
    backbone = small_clip(**{"vision_layers": 3, "text_layers": 3, **setting.backbone})
    model = CSKT(backbone, CSKTConfig(**{"prompt_length": 2, **setting.config})).double()
    for parameter in model.parameters():
        if parameter.requires_grad:  # away from the start, where much is zero
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def assert_close(value, expected):
    assert (value - expected).abs().max() <= 1e-9 * expected.abs().max()


def assert_all_close(values, expected):
    for value, other in zip(values, expected, strict=True):
        assert_close(value, other)


def features(model):
    """Image features, text features."""
    with torch.no_grad():
        return model(IMAGES, model.tokenize(CAPTIONS))


def recorded_features(model):
    with torch.no_grad():
        image_features = model.encode_image(IMAGES, record=Record())
        text_features = model.encode_text(model.tokenize(CAPTIONS), record=Record())
    return image_features, text_features


def gradients(model, image_features, text_features):
    """Of the loss, by the trained parameter's name."""
    model.zero_grad()
    sdm_loss(image_features, text_features, LABELS).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_short_way_is_the_plain_way(small_clip, name):
    model = model_of(small_clip, SETTINGS[name])
    ids = model.tokenize(CAPTIONS)
    plain = plain_encode_image(model, IMAGES), plain_encode_text(model, ids)
    short = model(IMAGES, ids)
    assert_all_close(short, plain)
    expected = gradients(model, *plain)
    for parameter, gradient in gradients(model, *short).items():
        assert_close(gradient, expected[parameter])


@pytest.mark.parametrize("name", [*SETTINGS, *LORA])
def test_checkpointed_has_the_same_gradients(small_clip, name):
    model = model_of(small_clip, (SETTINGS | LORA)[name])
    ids = model.tokenize(CAPTIONS)
    expected = gradients(model, *model(IMAGES, ids))
    model.steps = {"vision": checkpointed, "text": checkpointed}
    for parameter, gradient in gradients(model, *model(IMAGES, ids)).items():
        assert_close(gradient, expected[parameter])


@pytest.mark.parametrize("name", [*SETTINGS, *LORA])
def test_recorded_and_fused_have_the_same_features(small_clip, name):
    model = model_of(small_clip, (SETTINGS | LORA)[name])
    plain = features(model)
    assert_all_close(recorded_features(model), plain)
    model.fuse()
    assert_all_close(features(model), plain)
    assert_all_close(features(model), plain)  # from what was remembered
    assert_all_close(recorded_features(model), plain)


def load_trainable(model):
    state = {name: tensor * 1.5 for name, tensor in model.trainable_state().items()}
    model.load_trainable_state(state)


def load_reference(model):
    state = {name: tensor * 0.5 for name, tensor in model.to_reference_state().items()}
    model.load_reference_checkpoint(state)


def load_whole(model):
    state = {name: tensor * 0.8 for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)


@pytest.mark.parametrize("load", [load_trainable, load_reference, load_whole])
def test_fusing_is_undone_by_loading(small_clip, load):
    model = model_of(small_clip)
    stale_images, stale_texts = features(model.fuse())
    load(model)
    images, texts = features(model)
    assert not torch.equal(images, stale_images)
    assert not torch.equal(texts, stale_texts)


def test_fusing_is_undone_by_training_and_by_moving(small_clip):
    model = model_of(small_clip)
    ids = model.tokenize(CAPTIONS)
    model.fuse().train()
    loss = sdm_loss(*model(IMAGES, ids), LABELS)
    assert loss.requires_grad
    assert model.fuse().float().encode_text(ids).dtype == torch.float32


def test_fused_within_a_block_a_model_that_is_fused_stays_so(small_clip):
    model = model_of(small_clip)
    with model.fused():
        assert model.fused_dtype == torch.float64
        with model.fused(torch.bfloat16):
            assert model.fused_dtype == torch.float64
        assert model.fused_dtype == torch.float64
    assert model.fused_dtype is None


def test_fused_in_bfloat16_stays_close(small_clip):
    model = CSKT(small_clip(), CSKTConfig(prompt_length=2))
    ids = model.tokenize(CAPTIONS)
    with torch.no_grad():
        plain = model(IMAGES.float(), ids)
        fused = model.fuse(torch.bfloat16)(IMAGES.float(), ids)
    for value, expected in zip(fused, plain, strict=True):
        assert value.dtype == torch.float32
        assert not torch.equal(value, expected)
        assert torch.cosine_similarity(value, expected).min() > 0.999


def test_grid():
    grid = Grid.packed(torch.tensor([2, 1, 3]))
    rows = torch.arange(1.0, 7.0)[:, None]
    cells = grid.spread(rows)
    filled = grid.filled()[:, 0, 0]
    behind_one = grid.filled(shared=1)[:, 0, 0]
    assert cells[..., 0].tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert torch.equal(grid.pack(cells), rows)
    assert grid.rows(torch.tensor([1, 0, 2])).tolist() == [1, 2, 5]
    assert filled.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert torch.equal(behind_one[:, 1:], filled)
    assert behind_one[:, 0].all()


@pytest.mark.parametrize("seen", [None, torch.ones(9, 9).bool().tril()], ids=["all", "causal"])
def test_attention_in_bfloat16_on_a_cpu_is_torchs(seen):
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 9, 16, generator=random).bfloat16()
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), attn_mask=seen
    )
    torch.testing.assert_close(attention(q, k, v, seen).float(), expected, rtol=0.02, atol=0.02)


# Recording


def recorded(model, tower, layers=None):
    record = Record(layers)
    with torch.no_grad():
        if tower == "vision":
            model.encode_image(IMAGES, record=record)
        else:
            model.encode_text(model.tokenize(CAPTIONS), record=record)
    return record


def output_from(layer, x, weights):
    """A block's output from its input x (B, columns, W) and its attention weights."""
    heads = weights.shape[1]
    rows = layer.block.ln_1(x).flatten(0, 1)
    values = layer.keys_values(rows).chunk(2, -1)[1]
    values = values.unflatten(0, x.shape[:2]).unflatten(-1, (heads, -1))
    mixed = weights @ values.transpose(1, 2)
    x = x + layer.output(mixed.transpose(1, 2).flatten(2))
    return x + layer.feed_forward(x.flatten(0, 1)).view_as(x)


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_recorded_attention_sums_to_one_and_makes_the_blocks_output(small_clip, tower):
    # From layer 1 on, a block's input is the output of the one before.
    model = model_of(small_clip, Setting({"prompt_depth": 1}))
    record = recorded(model, tower)
    for layer, weights in record.attention.items():
        sums = weights.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        assert weights.shape[2] == weights.shape[3] == record.outputs[layer].shape[1]
    with torch.no_grad():
        last = model.tower(tower).layers[2]
        made = output_from(last, record.outputs[1], record.attention[2])
    assert_close(made, record.outputs[2])


def test_no_word_reads_what_follows_it(small_clip):
    record = recorded(model_of(small_clip), "text")
    assert (record.attention[0].triu(1) == 0).all()


@pytest.mark.parametrize("layers", [[2], []])
def test_nothing_is_kept_of_layers_that_were_not_asked_for(small_clip, layers):
    model = model_of(small_clip)
    whole = recorded(model, "vision")
    some = recorded(model, "vision", layers)
    assert list(whole.attention) == list(whole.outputs) == [0, 1, 2]
    assert list(some.attention) == list(some.outputs) == layers
    for layer in layers:
        assert_close(some.attention[layer], whole.attention[layer])


def test_attention_has_gradients_where_nothing_is_trained(small_clip):
    model = model_of(small_clip).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    record = Record([1])
    total = model.encode_image(IMAGES, record=record).sum()
    (gradient,) = torch.autograd.grad(total, record.attention[1])
    assert gradient.shape == record.attention[1].shape
    assert gradient.abs().max() > 0


# LoRA


def test_a_small_lora_update_survives_bf16(small_clip):
    """Added to the frozen matrix in bf16, most of it would be rounded away."""
    model = CSKT(small_clip(), CSKTConfig(lora_rank=2).for_method("lora"))
    layer = model.cast_frozen(torch.bfloat16).tower("text").layers[0]
    torch.nn.init.normal_(layer.lora.up, std=1e-3)
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    intended = x @ layer.lora.merged().t()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        update = layer.lora(x, slice(None)).float()
        whole = torch.cat([layer.queries(x), layer.keys_values(x)], dim=1).float()
    assert (update - intended).norm() < 0.02 * intended.norm()
    attn = layer.block.attn
    plain = x @ attn.in_proj_weight.float().t() + attn.in_proj_bias.float()
    assert (whole - plain - intended).norm() < 0.02 * plain.norm()
