"""What a user of CSKT can rely on, whatever the weights."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from cskt.config import METHODS, CSKTConfig
from cskt.errors import CSKTError
from cskt.losses import sdm_loss
from cskt.model import CSKT
from cskt.model.backbone import create_backbone
from cskt.model.inputs import fit_captions

pytestmark = pytest.mark.numerics
OFF = CSKTConfig().for_method("zero-shot")
END = 49407
CAPTIONS = [
    "A man in a black coat.",
    "She carries a red bag and walks a small dog. " * 12,
    "",
    "blue shoes",
]


@pytest.fixture(scope="module")
def model(small_clip):
    return CSKT(small_clip(), CSKTConfig(prompt_length=2)).eval().double()


def plain_equal(backbone, config=OFF, tolerance=1e-5, captions=CAPTIONS):
    model = CSKT(backbone, config)
    images = torch.randn(1, 3, *model.image_size, generator=torch.Generator().manual_seed(1))
    ids = model.tokenize(captions)
    with torch.no_grad():
        image_features, text_features = model(images, ids)
        expected_images = backbone.encode_image(images)
        expected_texts = backbone.encode_text(ids)
    torch.testing.assert_close(image_features, expected_images, rtol=0, atol=tolerance)
    torch.testing.assert_close(text_features, expected_texts, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"quick_gelu": False},
        {"vision": {"ls_init_value": 0.1}},
        {"text": {"proj_bias": True}},
        {"vision": {"no_ln_pre": True}},
        {"text": {"pool_type": "eos", "eos_id": END}},
        {"vision_layers": 1},
        {"text": {"proj_type": "none"}},
    ],
)
def test_without_prompts_and_adapters_it_is_the_backbone(small_clip, extra):
    plain_equal(small_clip(**extra))


def test_depth_zero_and_scale_zero_is_the_backbone(small_clip):
    plain_equal(small_clip(), CSKTConfig(prompt_depth=0, vision_scale=0.0, text_scale=0.0))
    plain_equal(small_clip(), CSKTConfig(prompt_depth=0, adapter_init="zero"))
    plain_equal(small_clip(), CSKTConfig().for_method("lora"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ViT-B-16-quickgelu", (384, 128)),
        ("ViT-B-32", (224, 224)),
        ("ViT-L-14", (384, 128)),
        ("cskt-mini", (128, 64)),
    ],
)
def test_without_prompts_and_adapters_it_is_open_clip(name, size):
    torch.manual_seed(0)
    plain_equal(create_backbone(name, image_size=size))


@pytest.mark.parametrize(
    ("name", "size", "trainable", "total"),
    [
        ("ViT-B-16-quickgelu", (384, 128), 12_117_888, 161_735_552),
        ("ViT-B-32", (224, 224), 12_117_888, None),
        ("ViT-L-14", (384, 128), None, None),
    ],
)
def test_parameter_counts_of_real_backbones(name, size, trainable, total):
    with torch.device("meta"):
        model = CSKT(create_backbone(name, image_size=size))
    assert trainable is None or model.num_trainable == trainable
    assert total is None or model.num_total == total
    rows = [line.split() for line in model.summary().splitlines()[2:]]
    trained = [int(row[-2].replace(",", "")) for row in rows]
    every = [int(row[-1].replace(",", "")) for row in rows]
    assert sum(trained[:-1]) == trained[-1] == model.num_trainable
    assert sum(every[:-1]) == every[-1] == model.num_total
    assert "(prompts): BidirectionalPrompts" in repr(model)


@pytest.mark.parametrize("method", METHODS)
def test_methods_train_what_they_say(small_clip, method):
    model = CSKT(small_clip(), CSKTConfig(prompt_length=2).for_method(method))
    names = set(model.trainable_state())
    kinds = {name.split(".")[0] for name in names}
    expected = {
        "zero-shot": set(),
        "full": {"backbone"},
        "prompts-text-to-image": {"prompts"},
        "prompts-image-to-text": {"prompts"},
        "bpt": {"prompts"},
        "adapter-vision": {"vision_adapters"},
        "adapter-text": {"text_adapters"},
        "dat": {"vision_adapters", "text_adapters"},
        "lora": {"vision_lora", "text_lora"},
        "cskt": {"prompts", "vision_adapters", "text_adapters"},
    }
    assert kinds == expected[method]
    features = model(
        torch.randn(3, 3, 64, 32), model.tokenize(["a man", "a woman in red", "a dog"])
    )
    if names:
        sdm_loss(*features, torch.tensor([0, 1, 1])).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_one_direction_feeds_both_towers_from_one_side(small_clip):
    model = CSKT(small_clip(), CSKTConfig(prompt_length=3).for_method("prompts-text-to-image"))
    assert [rows.shape for rows in model.prompts.text_rows()] == [(3, 16), (3, 16)]
    assert [rows.shape for rows in model.prompts.vision_rows()] == [(3, 32), (3, 32)]
    assert torch.equal(model.prompts.text_rows()[0], model.prompts.text[0])
    assert len(model.prompts.vision) == len(model.prompts.vision_to_text) == 0
    model = CSKT(small_clip(), CSKTConfig(prompt_length=3).for_method("prompts-image-to-text"))
    assert torch.equal(model.prompts.vision_rows()[1], model.prompts.vision[1])
    assert len(model.prompts.text) == 0


def add_updates(blocks, updates):
    """Random updates, written into the blocks' own weights."""
    for block, update in zip(blocks, updates, strict=True):
        update.up.normal_()
        block.attn.in_proj_weight += update.up @ update.down


def test_lora_is_open_clip_with_updated_weights(small_clip):
    """The oracle is open_clip's own attention, its weights changed by hand."""
    model = CSKT(small_clip(), CSKTConfig(lora_rank=3).for_method("lora"))
    assert model.num_trainable == 2 * 3 * (16 + 48) + 2 * 3 * (32 + 96)
    merged = small_clip()
    images, ids = torch.randn(2, 3, 64, 32), model.tokenize(CAPTIONS)
    with torch.no_grad():
        add_updates(merged.transformer.resblocks, model.text_lora)
        add_updates(merged.visual.transformer.resblocks, model.vision_lora)
        image_features, text_features = model(images, ids)
        expected_images = merged.encode_image(images)
        expected_texts = merged.encode_text(ids)
    torch.testing.assert_close(image_features, expected_images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text_features, expected_texts, rtol=1e-4, atol=1e-5)
    with pytest.raises(CSKTError, match="no LoRA"):
        model.to_reference_state()


def test_prompt_starts_from_the_phrase(small_clip):
    backbone = small_clip()
    for length in (2, 6):
        model = CSKT(backbone, CSKTConfig(prompt_length=length, prompt_init="a photo of a"))
        ids = model.tokenize(["a photo of a"])[0, 1:5][:length]
        assert torch.equal(model.prompts.text[0][: len(ids)], backbone.token_embedding.weight[ids])


def test_zero_adapters_leave_the_features_alone(small_clip):
    plain_equal(small_clip(), CSKTConfig(adapter_init="zero").for_method("dat"))


def test_towers_of_different_depth(small_clip):
    backbone = small_clip(vision_layers=3, text_layers=1)
    assert CSKT(backbone).prompts.depth == 1
    with pytest.raises(CSKTError, match="prompt_depth must be at most 1"):
        CSKT(backbone, CSKTConfig(prompt_depth=2))


def test_frozen_stays_frozen(small_clip):
    model = CSKT(small_clip(), CSKTConfig(prompt_length=1)).train()
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    start = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    images, ids = torch.randn(4, 3, 64, 32), model.tokenize(CAPTIONS)
    for _ in range(10):
        optimizer.zero_grad()
        sdm_loss(*model(images, ids), torch.tensor([0, 1, 1, 2])).backward()
        optimizer.step()
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for name, tensor in model.trainable_state().items():
        assert not torch.equal(tensor, start[name]), name


def test_full_fine_tuning_moves_everything_but_the_temperature(small_clip):
    model = CSKT(small_clip(), CSKTConfig().for_method("full"))
    assert model.num_trainable == model.num_total
    assert not model.backbone.logit_scale.requires_grad


def test_inputs_are_left_alone(model):
    images, ids = torch.randn(2, 3, 64, 32, dtype=torch.float64), model.tokenize(CAPTIONS)
    images_before, ids_before = images.clone(), ids.clone()
    model(images, ids)
    assert torch.equal(images, images_before) and torch.equal(ids, ids_before)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_caption_does_not_depend_on_its_company(model, lengths, random):
    """Neither other captions, their order, what follows the end token, nor the padding width
    matters."""
    words = ["red", "coat", "man", "umbrella"]
    ids = model.tokenize([" ".join(random.choices(words, k=n)) for n in lengths])
    order = torch.tensor(random.sample(range(len(ids)), len(ids)))
    with torch.no_grad():
        together = model.encode_text(ids)
        shuffled = model.encode_text(ids[order])
    torch.testing.assert_close(shuffled, together[order], rtol=1e-9, atol=1e-12)
    for row, feature in zip(ids, together, strict=True):
        end = int((row == END).int().argmax())
        noisy = row.clone()
        noisy[end + 1 :] = random.randrange(49406)
        for alone in (row, row[: end + 1], noisy):
            with torch.no_grad():
                by_itself = model.encode_text(alone[None])[0]
            torch.testing.assert_close(by_itself, feature, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(0, 64))
def test_truncation_keeps_start_and_end(model, words, prompts):
    ids = model.tokenize(["coat " * words])
    kept, end = fit_captions(ids, END, 77 - prompts)
    assert kept.shape == (1, 77 - prompts) and kept[0, 0] == 49406
    assert (kept == END).nonzero().tolist() == [[0, int(end)]]
    assert int(end) == min(words, 75 - prompts) + 1
    assert torch.equal(kept[0, 1 : int(end)], ids[0, 1 : int(end)])


def test_normalize_and_single_inputs(model):
    images, ids = torch.randn(2, 3, 64, 32, dtype=torch.float64), model.tokenize("a man")
    with torch.no_grad():
        image_features, no_texts = model(images)
        no_images, text_features = model(token_ids=ids)
        image_units = model.encode_image(images, normalize=True)
        text_units = model.encode_text(ids.int(), normalize=True)
    assert no_texts is None
    assert no_images is None
    for plain, units in ((image_features, image_units), (text_features, text_units)):
        torch.testing.assert_close(plain / plain.norm(dim=-1, keepdim=True), units)
    with pytest.raises(CSKTError, match="images, token_ids or both"):
        model()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 32, 64), r"\(B, 3, 64, 32\).*got \(1, 3, 32, 64\)"),
        (torch.zeros(1, 1, 64, 32), r"got \(1, 1, 64, 32\)"),
        (torch.zeros(0, 3, 64, 32), r"B >= 1, got \(0,"),
        (torch.zeros(3, 64, 32), r"got \(3, 64, 32\)"),
        (torch.zeros(1, 3, 64, 32, dtype=torch.uint8), "torch.float64, got torch.uint8"),
        ([[1.0]], "got list"),
    ],
)
def test_bad_images(model, images, message):
    with pytest.raises(CSKTError, match=message):
        model.encode_image(images)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[49406, 320, 0]]), "row 0 lacks the end token 49407"),
        (torch.tensor([[49406, END, 0], [END, 0, 0]]), "row 1 lacks the end token"),
        (torch.tensor([[49406, 60000, END]]), "from 0 to 49407, got 49406 to 60000"),
        (torch.tensor([[49406, -1, END]]), "got -1"),
        (torch.tensor([[49406, 320, END], [5, 320, END]]), r"one start token, got \[5, 49406\]"),
        (torch.zeros(0, 77, dtype=torch.long), r"B >= 1, got \(0, 77\)"),
        (torch.zeros(1, 78, dtype=torch.long), r"\(B, 77\)"),
        (torch.zeros(1, 77), "integers, got torch.float32"),
        ("a man", "got str"),
    ],
)
def test_bad_token_ids(model, ids, message):
    with pytest.raises(CSKTError, match=message):
        model.encode_text(ids)


def test_bad_captions_and_configurations(model, small_clip):
    for texts in ([], ["a", 3]):
        with pytest.raises(CSKTError, match="at least one caption, each a str"):
            model.tokenize(texts)
    with pytest.raises(CSKTError, match="prompt_length must leave room"):
        CSKT(small_clip(text={"context_length": 10}))
    with pytest.raises(CSKTError, match="reduction must be at most"):
        CSKT(small_clip(), CSKTConfig(reduction=17))
    with pytest.raises(CSKTError, match="not an open_clip ViT CLIP"):
        CSKT(torch.nn.Linear(1, 1))
    with pytest.raises(CSKTError, match="causal text tower"):
        CSKT(small_clip(text={"no_causal_mask": True}))


def test_bfloat16_autocast_stays_close(small_clip):
    model = CSKT(small_clip(), CSKTConfig(prompt_length=2))
    images, ids = torch.randn(2, 3, 64, 32), model.tokenize(["a man in red", "a dog"])
    with torch.no_grad():
        plain = model(images, ids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(images, ids)
    for a, b in zip(plain, mixed, strict=True):
        assert torch.cosine_similarity(a, b.float()).min() > 0.999


def test_unknown_words(small_clip):
    model = CSKT(small_clip(), known_tokens=set(), tokenizer=None)
    encode = model.tokenizer.encode
    model.known_tokens = {*encode("a"), *encode("man's"), *encode("coat"), *encode(",")}
    assert model.unknown_words("A man's purple coat, a purple zebra.") == ["purple", "zebra", "."]
    model.known_tokens = None
    assert model.unknown_words("purple") == []
