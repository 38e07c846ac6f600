"""Computing less, keeping less or fusing changes no number: against a plain model, in float64."""

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
CASES = {
    "cskt": {},
    "one prompt": {"prompt_length": 1},
    "shallow": {"prompt_depth": 1},
    "two of three": {"prompt_depth": 2},
    "no prompts": {"prompt_depth": 0},
    "text to image": {"vision_to_text": False},
    "image to text": {"text_to_vision": False},
    "no text adapter": {"text_adapter": False},
    "no vision adapter": {"vision_adapter": False},
    "no direction": {"text_to_vision": False, "vision_to_text": False},
    "trained backbone": {"train_backbone": True},
    "eight prompts": {"prompt_length": 4},
}
SHAPES = {
    "equal towers": dict(vision_layers=3, text_layers=3),
    "deep vision": dict(vision_layers=3, text_layers=2),
    "deep text": dict(vision_layers=2, text_layers=3),
    "gelu": dict(quick_gelu=False),
    "layer scale": dict(vision={"ls_init_value": 0.3}, text={"ls_init_value": 0.2}),
}


def close(value, expected):
    assert (value - expected).abs().max() <= 1e-9 * expected.abs().max()


def model_of(small_clip, shape="equal towers", **settings):
    torch.manual_seed(3)
    model = CSKT(
        small_clip(**SHAPES[shape]), CSKTConfig(**{"prompt_length": 2, **settings})
    ).double()
    for parameter in model.parameters():
        if parameter.requires_grad:  # away from the start, where much is zero
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def features(model, record=False):
    ids = model.tokenize(CAPTIONS)
    with torch.no_grad():
        return (
            model.encode_image(IMAGES, record=Record() if record else None),
            model.encode_text(ids, record=Record() if record else None),
        )


def gradients(model, image_features, text_features):
    model.zero_grad()
    sdm_loss(image_features, text_features, LABELS).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def pairs():
    cases = [("equal towers", settings) for settings in CASES.values()]
    return cases + [(shape, {}) for shape in SHAPES if shape != "equal towers"]


@pytest.mark.parametrize(("shape", "settings"), pairs(), ids=[*CASES, *list(SHAPES)[1:]])
def test_the_short_way_is_the_plain_way(small_clip, shape, settings):
    model = model_of(small_clip, shape, **settings)
    ids = model.tokenize(CAPTIONS)
    plain, short = (
        (plain_encode_image(model, IMAGES), plain_encode_text(model, ids)),
        model(IMAGES, ids),
    )
    for value, expected in zip(short, plain, strict=True):
        close(value, expected)
    expected = gradients(model, *plain)
    for name, gradient in gradients(model, *short).items():
        close(gradient, expected[name])


@pytest.mark.parametrize(
    ("shape", "settings"),
    [*pairs(), ("equal towers", {"lora": True})],
    ids=[*CASES, *list(SHAPES)[1:], "lora"],
)
def test_fused_and_recorded_and_checkpointed_are_equal(small_clip, shape, settings):
    model = model_of(small_clip, shape, **settings)
    ids = model.tokenize(CAPTIONS)
    plain = model(IMAGES, ids)
    before = gradients(model, *plain)
    model.steps = dict.fromkeys(model.steps, checkpointed)
    for name, gradient in gradients(model, *model(IMAGES, ids)).items():
        close(gradient, before[name])
    with torch.no_grad():
        recorded = features(model, record=True)
        model.fuse()
        for found in (recorded, *(features(model) for _ in range(2)), features(model, record=True)):
            for value, expected in zip(found, plain, strict=True):
                close(value, expected)


def test_fusing_is_undone_by_what_changes_weights(small_clip):
    model = model_of(small_clip)
    ids, images = model.tokenize(CAPTIONS), IMAGES
    state = {name: tensor * 1.5 for name, tensor in model.trainable_state().items()}
    reference = {name: tensor * 0.5 for name, tensor in model.to_reference_state().items()}
    whole = {name: tensor * 0.8 for name, tensor in model.state_dict().items()}
    for change in (
        lambda: model.load_trainable_state(state),
        lambda: model.load_reference_checkpoint(reference),
        lambda: model.load_state_dict(whole),
    ):
        stale = model.fuse()(images, ids)
        change()
        for value, old in zip(model(images, ids), stale, strict=True):
            assert not torch.equal(value, old)
    model.fuse().train()
    loss = sdm_loss(*model(images, ids), LABELS)
    assert loss.requires_grad
    assert model.fuse().float().encode_text(ids).dtype == torch.float32


def test_fused_in_bfloat16_stays_close(small_clip):
    model = CSKT(small_clip(), CSKTConfig(prompt_length=2))
    images, ids = IMAGES.float(), model.tokenize(CAPTIONS)
    with torch.no_grad():
        plain, fused = model(images, ids), model.fuse(torch.bfloat16)(images, ids)
    for a, b in zip(plain, fused, strict=True):
        assert b.dtype == torch.float32 and not torch.equal(a, b)
        assert torch.cosine_similarity(a, b).min() > 0.999


def test_grid():
    grid = Grid.packed(torch.tensor([2, 1, 3]))
    rows = torch.arange(1.0, 7.0)[:, None]
    assert grid.spread(rows)[..., 0].tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert torch.equal(grid.pack(grid.spread(rows)), rows)
    assert grid.rows(torch.tensor([1, 0, 2])).tolist() == [1, 2, 5]
    assert grid.filled()[:, 0, 0].tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, True],
    ]


def test_attention_in_bfloat16_on_a_cpu_is_torchs():
    q, k, v = torch.randn(3, 2, 4, 9, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    for seen in (None, torch.ones(9, 9).bool().tril()):
        expected = torch.nn.functional.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), attn_mask=seen
        )
        torch.testing.assert_close(attention(q, k, v, seen).float(), expected, rtol=0.02, atol=0.02)


# Recording


@pytest.mark.parametrize("layers", [None, [2], []])
def test_recorded_attention_sums_to_one_and_makes_the_block_s_output(small_clip, layers):
    model = model_of(
        small_clip, prompt_depth=1
    )  # from layer 1 on, a block's input is the output of the one before
    whole = Record(), Record()
    ids = model.tokenize(CAPTIONS)
    with torch.no_grad():
        model.encode_image(IMAGES, record=whole[0]), model.encode_text(ids, record=whole[1])
        for name, record in zip(("vision", "text"), whole, strict=True):
            for layer, weights in record.attention.items():
                torch.testing.assert_close(
                    weights.sum(-1), torch.ones(weights.shape[:3], dtype=weights.dtype)
                )
                assert weights.shape[2] == weights.shape[3] == record.outputs[layer].shape[1]
            layer, x = model.tower(name).layers[2], record.outputs[1]
            values = layer.keys_values(layer.block.ln_1(x).flatten(0, 1)).chunk(2, -1)[1]
            values = (
                values.unflatten(0, x.shape[:2])
                .unflatten(-1, (weights.shape[1], -1))
                .transpose(1, 2)
            )
            x = x + layer.output((record.attention[2] @ values).transpose(1, 2).flatten(2))
            close(x + layer.feed_forward(x.flatten(0, 1)).view_as(x), record.outputs[2])
        assert (whole[1].attention[0].triu(1) == 0).all(), "no word reads what follows it"
        part = Record(layers)
        model.encode_image(IMAGES, record=part)
    kept = [0, 1, 2] if layers is None else layers
    assert list(part.attention) == list(part.outputs) == kept, (
        "nothing is held of layers that were not asked for"
    )
    for i in kept:
        close(part.attention[i], whole[0].attention[i])


def test_attention_has_gradients_where_nothing_is_trained(small_clip):
    model, record = model_of(small_clip).eval(), Record([1])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    (gradient,) = torch.autograd.grad(
        model.encode_image(IMAGES, record=record).sum(), record.attention[1]
    )
    assert gradient.shape == record.attention[1].shape and gradient.abs().max() > 0


def test_a_small_lora_update_survives_bf16(small_clip):
    """Added to the frozen matrix in bf16, most of it would be rounded away."""
    model = CSKT(small_clip(), CSKTConfig(lora_rank=2).for_method("lora")).cast_frozen(
        torch.bfloat16
    )
    layer = model.tower("text").layers[0]
    torch.nn.init.normal_(layer.lora.up, std=1e-3)
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    intended = x @ layer.lora.merged().t()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        update = layer.lora(x, slice(None)).float()
        whole = torch.cat([layer.queries(x), layer.keys_values(x)], dim=1).float()
    assert (update - intended).norm() < 0.02 * intended.norm()
    plain = x @ layer.block.attn.in_proj_weight.float().t() + layer.block.attn.in_proj_bias.float()
    assert (whole - plain - intended).norm() < 0.02 * plain.norm()
