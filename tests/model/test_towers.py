"""Computing less, keeping less or fusing changes no number: against a plain model, in float64."""

import pytest
import torch

from benchmarks.plain import plain_encode_image, plain_encode_text
from cskt.config import CSKTConfig
from cskt.losses import sdm_loss
from cskt.model import CSKT
from cskt.model.towers import Grid, attention, checkpointed

# No word, exactly as many as fit with eight prompts, and more than fit.
CAPTIONS = ["a man in red", "", "word " * 67, "word " * 90]
IMAGES = torch.randn(4, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
LABELS = torch.tensor([0, 1, 1, 2])
CASES = {
    "cskt": {}, "one prompt": {"prompt_length": 1}, "shallow": {"prompt_depth": 1}, "two of three": {"prompt_depth": 2},
    "no prompts": {"prompt_depth": 0}, "text to image": {"vision_to_text": False},
    "image to text": {"text_to_vision": False}, "no text adapter": {"text_adapter": False},
    "no vision adapter": {"vision_adapter": False}, "no direction": {"text_to_vision": False, "vision_to_text": False},
    "trained backbone": {"train_backbone": True}, "eight prompts": {"prompt_length": 4},
}
SHAPES = {"equal towers": dict(vision_layers=3, text_layers=3), "deep vision": dict(vision_layers=3, text_layers=2),
          "deep text": dict(vision_layers=2, text_layers=3), "gelu": dict(quick_gelu=False),
          "layer scale": dict(vision={"ls_init_value": 0.3}, text={"ls_init_value": 0.2})}


def close(value, expected):
    assert (value - expected).abs().max() <= 1e-9 * expected.abs().max()


def model_of(small_clip, shape="equal towers", **settings):
    torch.manual_seed(3)
    model = CSKT(small_clip(**SHAPES[shape]), CSKTConfig(**{"prompt_length": 2, **settings})).double()
    for parameter in model.parameters():
        if parameter.requires_grad:  # away from the start, where much is zero
            torch.nn.init.normal_(parameter, std=0.3)
    return model


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
    plain, short = (plain_encode_image(model, IMAGES), plain_encode_text(model, ids)), model(IMAGES, ids)
    for value, expected in zip(short, plain, strict=True):
        close(value, expected)
    expected = gradients(model, *plain)
    for name, gradient in gradients(model, *short).items():
        close(gradient, expected[name])


@pytest.mark.parametrize(("shape", "settings"), [*pairs(), ("equal towers", {"lora": True})],
                         ids=[*CASES, *list(SHAPES)[1:], "lora"])
def test_fused_and_recorded_and_checkpointed_are_equal(small_clip, shape, settings):
    model = model_of(small_clip, shape, **settings)
    ids = model.tokenize(CAPTIONS)
    plain = model(IMAGES, ids)
    before = gradients(model, *plain)
    model.steps = dict.fromkeys(model.steps, checkpointed)
    for name, gradient in gradients(model, *model(IMAGES, ids)).items():
        close(gradient, before[name])
    with torch.no_grad():
        recorded = model.encode_image(IMAGES, record=[]), model.encode_text(ids, record=[])
        model.fuse()
        fused = [model(IMAGES, ids) for _ in range(2)]
        for features in (recorded, *fused, (model.encode_image(IMAGES, record=[]), model.encode_text(ids, record=[]))):
            for value, expected in zip(features, plain, strict=True):
                close(value, expected)


def test_fusing_is_undone_by_what_changes_weights(small_clip):
    model = model_of(small_clip)
    ids, images = model.tokenize(CAPTIONS), IMAGES
    state = {name: tensor * 1.5 for name, tensor in model.trainable_state().items()}
    reference = {name: tensor * 0.5 for name, tensor in model.to_reference_state().items()}
    for change in (lambda: model.load_trainable_state(state), lambda: model.load_reference_checkpoint(reference)):
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
    assert grid.filled()[:, 0, 0].tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_attention_in_bfloat16_on_a_cpu_is_torchs():
    q, k, v = torch.randn(3, 2, 4, 9, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    for seen in (None, torch.ones(9, 9).bool().tril()):
        expected = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=seen)
        torch.testing.assert_close(attention(q, k, v, seen).float(), expected, rtol=0.02, atol=0.02)
