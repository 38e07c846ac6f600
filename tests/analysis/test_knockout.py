"""A model without a part: only what reads the part changes, and afterwards the model is whole."""

import open_clip
import pytest
import torch

from cskt.analysis.knockout import PARTS, without
from cskt.config import CSKTConfig
from cskt.errors import CSKTError
from cskt.model import CSKT
from cskt.model.recording import Record

pytestmark = pytest.mark.numerics
# No word, exactly as many as fit with eight prompts, and more than fit.
CAPTIONS = ["a man in red", "", "word " * 67, "word " * 90]
IMAGES = torch.randn(4, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
IMAGE, TEXT = 0, 1


def small_model(**settings):
    torch.manual_seed(0)
    vision = dict(layers=3, width=32, head_width=16, patch_size=16, image_size=(64, 32))
    text = dict(layers=3, width=16, heads=2, context_length=77, vocab_size=49408)
    clip = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    torch.manual_seed(3)
    model = CSKT(clip, CSKTConfig(**{"prompt_length": 2, **settings})).eval().double()
    for parameter in model.parameters():
        if parameter.requires_grad:  # away from the start, where much is zero
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def features(model, recorded=False):
    """Image features and text features."""
    ids = model.tokenize(CAPTIONS)
    image_record = Record() if recorded else None
    text_record = Record() if recorded else None
    with torch.no_grad():
        image_features = model.encode_image(IMAGES, record=image_record)
        text_features = model.encode_text(ids, record=text_record)
    return image_features, text_features


def assert_close(value, expected):
    assert (value - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("depth", [None, 2])
@pytest.mark.parametrize("layers", [None, [0], [1], [0, 1]])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("tower", "changed", "unchanged"), [("vision", IMAGE, TEXT), ("text", TEXT, IMAGE)]
)
def test_without_a_part_only_what_reads_it_changes(tower, changed, unchanged, part, layers, depth):
    model = small_model(prompt_depth=depth)
    whole = features(model)
    with without(model, tower, part, layers=layers):
        cut = features(model)
        recorded = features(model, recorded=True)
        fused = features(model.fuse())
    assert (cut[changed] - whole[changed]).abs().max() > 1e-3
    assert_close(cut[unchanged], whole[unchanged])
    assert_close(recorded[changed], cut[changed])
    assert_close(fused[changed], cut[changed])
    assert model.fused_dtype is None
    again = features(model)
    assert torch.equal(again[IMAGE], whole[IMAGE])
    assert torch.equal(again[TEXT], whole[TEXT])


def test_without_everything_it_is_the_backbone():
    model = small_model()
    with without(model, "vision", *PARTS), without(model, "text", *PARTS):
        image_features, text_features = features(model)
    backbone = model.backbone
    with torch.no_grad():
        assert_close(image_features, backbone.encode_image(IMAGES))
        positions = backbone.positional_embedding  # words stay where they were
        positions[1 : -model.num_prompts] = positions[1 + model.num_prompts :].clone()
        expected = backbone.encode_text(model.tokenize(CAPTIONS))
    assert_close(text_features[:2], expected[:2])  # the others lose words to prompts


@pytest.mark.parametrize(
    ("tower", "part", "layers"),
    [
        ("vision", "projected prompts", None),
        ("text", "own prompts", None),
        ("text", "adapter", None),
        ("vision", "own prompts", [1, 2]),
    ],
)
def test_taking_out_what_is_not_there_changes_nothing(tower, part, layers):
    model = small_model(text_to_vision=False, text_adapter=False, prompt_depth=1)
    whole = features(model)
    with without(model, tower, part, layers=layers):
        cut = features(model)
    assert_close(cut[IMAGE], whole[IMAGE])
    assert_close(cut[TEXT], whole[TEXT])


@pytest.mark.parametrize(
    ("tower", "part", "layers"),
    [("image", "adapter", None), ("text", "prompts", None), ("text", "adapter", [3])],
)
def test_what_cannot_be_there_is_an_error(tower, part, layers):
    model = small_model()
    with (
        pytest.raises(CSKTError, match="layers from 0 to 2"),
        without(model, tower, part, layers=layers),
    ):
        pass


def test_an_error_within_the_block_leaves_the_model_whole():
    model = small_model()
    whole = features(model)
    with pytest.raises(KeyError), without(model, "text", *PARTS):
        raise KeyError("within")
    assert torch.equal(features(model)[TEXT], whole[TEXT])
