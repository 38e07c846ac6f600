"""What is lost without a part of a model."""

from __future__ import annotations

import torch

from cskt import CSKT, CSKTConfig, CSKTError, TrainConfig, figures, probes, train, views
from cskt.data.benchmarks import Split
from cskt.data.synthetic import synthetic_dataset
from cskt.data.synthetic.mentions import Mention
from cskt.evaluation import LoadedSplit
from cskt.knockout import PARTS

ROOT = Path(__file__).parents[1]
matplotlib.use("Agg")
CAPTIONS = ["a man in red", "a woman", "somebody with a long description of many words"]


def small_model(**settings):
    torch.manual_seed(0)
    vision = dict(layers=3, width=32, head_width=16, patch_size=16, image_size=(64, 32))
    text = dict(layers=3, width=16, heads=2, context_length=77, vocab_size=49408)
    clip = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    model = CSKT(clip, CSKTConfig(**{"reduction": 4, "prompt_length": 2, **settings})).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(
        256, (3, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.fixture(scope="module")
def images(pixels):
    return probes.normalize(pixels)


# Traffic and maps


def test_shares_are_those_of_the_maps_and_uniform_is_even(model, images):
    ids = model.tokenize(CAPTIONS)
    table = (
        probes.traffic(model, images, ids)
        .set_index(["tower", "reader", "prompts", "layer", "head"])
        .sort_index()
    )
    assert len(table) == 2 * 2 * 2 * 3 * 2 and table["share"].between(0, 1).all()
    maps, own = probes.prompt_maps(model, images), model.prompts.own("vision")
    assert maps.shape == (3, 3, 2, 4, 4, 2) and own.tolist() == [False, False, True, True]
    for kind, layer, head in itertools.product(("own", "projected"), range(3), range(2)):
        wanted = maps[:, layer, head][:, own == (kind == "own")].sum(1).mean().item()
        row = table.loc["vision", "patches", kind, layer, head]
        assert row["share"] == pytest.approx(wanted, rel=1e-5) and row["uniform"] == pytest.approx(
            2 / 13
        )
    words, own = probes.word_maps(model, ids[:1]), model.prompts.own("text")  # a man in red, end
    assert words.shape == (1, 3, 2, 4, 72) and own.tolist() == [True, True, False, False]
    one = probes.traffic(model, images, ids[:1]).set_index(
        ["tower", "reader", "prompts", "layer", "head"]
    )
    row = one.loc["text", "end token", "projected", 2, 1]
    assert row["share"] == pytest.approx(words[0, 2, 1, 2:, 4].sum().item(), rel=1e-5)
    assert row["uniform"] == pytest.approx(2 / 10), "start, four prompts, four words and itself"
    row = one.loc["text", "words", "own", 0, 0]
    assert row["share"] == pytest.approx(words[0, 0, 0, :2, :4].sum(0).mean().item(), rel=1e-5)


def test_only_the_layers_asked_for(model, images):
    assert set(probes.traffic(model, images, model.tokenize(CAPTIONS), [1])["layer"]) == {1}
    assert torch.allclose(
        probes.prompt_maps(model, images, [2])[:, 0], probes.prompt_maps(model, images)[:, 2]
    )


def test_without_prompts_there_is_no_traffic(images):
    model = small_model(text_to_vision=False, vision_to_text=False)
    assert probes.traffic(model, images, model.tokenize(CAPTIONS)).empty
    assert probes.coupling(model).empty and probes.nearest_words(model).empty
    assert set(probes.knock_out(model, loaded(model), "fp32")["part"]) == {"adapter"}
    assert probes.prompt_maps(model, images).shape[3] == 0
    one = small_model(vision_to_text=False)  # text prompts alone: own in text, projected in vision
    table = probes.traffic(one, images, one.tokenize(CAPTIONS))
    assert set(zip(table["tower"], table["prompts"], strict=True)) == {
        ("text", "own"),
        ("vision", "projected"),
    }


# Relevance


def test_relevance_finds_the_patch_that_decides(model):
    """Only one patch differs from grey, and the direction is what this difference does to the
    feature."""
    grey = torch.full((1, 3, 64, 32), 120, dtype=torch.uint8)
    found = 0
    for row, column in itertools.product(range(4), range(2)):
        spot = grey.clone()
        spot[:, 0, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 255
        with torch.no_grad():
            features = [
                model.encode_image(probes.normalize(each), normalize=True) for each in (spot, grey)
            ]
        maps = probes.image_relevance(model, probes.normalize(spot), features[0] - features[1])
        assert maps.shape == (1, 4, 2) and (maps >= 0).all()
        found += int(maps.argmax()) == 2 * row + column
    assert found >= 6, "a random map would find one of eight"


def test_text_relevance_counts_words_up_to_the_end(model):
    ids = model.tokenize(CAPTIONS)
    with torch.no_grad():
        directions = model.encode_text(ids, normalize=True)
    relevance = probes.text_relevance(model, ids, directions)
    assert relevance.shape == (3, 72)
    for row, caption in zip(relevance, CAPTIONS, strict=True):
        assert (row[len(caption.split()) + 1 :] == 0).all(), "nothing behind the end token is read"
        assert row[: len(caption.split()) + 1].sum() > 0


def test_short_rows_of_ids_are_read_as_they_are(model, images):
    ids = model.tokenize(CAPTIONS)
    short, long = (probes.traffic(model, images, each)["share"] for each in (ids[:, :12], ids))
    np.testing.assert_allclose(short, long, rtol=1e-5)


def test_zero_shot_models_have_relevance_too(images):
    model = CSKT(small_model().backbone, CSKTConfig().for_method("zero-shot")).eval()
    assert probes.image_relevance(model, images, torch.randn(3, 16)).max() > 0


def test_grounding_is_of_the_direction_of_the_words(model, pixels, images):
    maps = probes.ground(model, pixels[:2], CAPTIONS[:2], [(2, 4), (0, 1)], batch_size=1)
    with torch.no_grad():
        whole, rest = (
            model.encode_text(model.tokenize(text), normalize=True)
            for text in ("a man in red", "a man")
        )
    torch.testing.assert_close(maps[:1], probes.image_relevance(model, images[:1], whole - rest))
    assert maps.shape == (2, 4, 2)


# Pointing


def test_pointing_on_a_hand_made_image():
    masks = np.zeros((3, 8, 4), bool)  # each cell of the map is two by two pixels
    masks[0, 0, 0] = True  # touches the cell (0, 0) only
    masks[1, 2:6, :] = True  # the four cells in the middle
    masks[2, :2, :2] = True
    maps = np.zeros((3, 4, 2))
    maps[0, 0, 0] = 1.0  # right
    maps[1, 1, 0], maps[1, 2, 1], maps[1, 0, 0], maps[1, 3, 1] = (
        4,
        3,
        2,
        1,
    )  # right, and two of four cells
    maps[2, 3, 1] = 1.0  # wrong
    table = probes.pointing(maps, masks)
    assert table["pointing"].tolist() == [1, 1, 0] and table["IoU"].tolist() == pytest.approx(
        [1, 2 / 6, 0]
    )
    assert table["pointing by chance"].tolist() == pytest.approx([1 / 8, 4 / 8, 1 / 8])
    assert table["IoU by chance"][0] == pytest.approx(1 / 8)  # one of eight cells, all or nothing
    random = np.random.default_rng(0).random((4000, 4, 2))
    drawn = probes.pointing(random, np.repeat(masks[1:2], 4000, 0)).mean()
    assert drawn["pointing"] == pytest.approx(0.5, abs=0.03)
    assert drawn["IoU"] == pytest.approx(table["IoU by chance"][1], abs=0.01)
    with pytest.raises(CSKTError, match="touch a cell"):
        probes.pointing(maps, np.zeros_like(masks))
    with pytest.raises(CSKTError, match="one mask for each map, got 2 for 3"):
        probes.pointing(maps, masks[:2])
    fine = np.zeros((1, 24, 8))  # ViT-B/16's cells at 384x128 are no whole pixels of a mask 128x64
    fine[0, 12, 4] = 1
    tall = np.zeros((1, 128, 64), bool)
    tall[0, 64:69, 32:40] = True
    assert probes.pointing(fine, tall)["pointing"].tolist() == [1]
    assert probes.pointing(np.roll(fine, 3, 1), tall)["pointing"].tolist() == [0]


def test_grounding_tables_tell_better_from_the_same(model, pixels):
    mask = np.zeros((64, 32), bool)
    mask[:16, :16] = True
    mentions = [Mention(i % 3, i % 3, "a man in red", (2, 4), "upper", mask) for i in range(6)]
    scores = probes.grounding_scores({"one": model, "other": model}, pixels, mentions)
    table = probes.grounding_table(scores).set_index("part")
    assert list(table.index) == ["upper", "all"] and table.loc["all", "mentions"] == 6
    assert table.loc["all", "pointing, one"] == table.loc["all", "pointing, other"]
    assert all(
        "+0.0 points" in line and "not told apart" in line
        for line in probes.grounding_findings(scores, "one", "other")
    )
    better = scores.assign(pointing=(scores["model"] == "one").astype(float))
    assert (
        "pointing: one less other: +100.0 points (+100.0 to +100.0), told apart."
        in probes.grounding_findings(better, "one", "other")
    )


# Necessity


def loaded(model, people=3):
    pixels = torch.randint(
        256, (2 * people, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    captions = tuple(f"a person number {i}" for i in range(2 * people))
    identities = np.arange(2 * people) // 2
    split = Split(
        "test",
        tuple(Path(f"{i}.png") for i in identities),
        identities,
        captions,
        np.arange(2 * people),
    )
    return LoadedSplit(split, pixels, model.tokenize(list(captions)))


def test_knock_out_covers_every_part_and_layer():
    model = small_model(prompt_depth=2)
    table = probes.knock_out(model, loaded_split(model), "fp32")
    layers = table.groupby(["tower", "part"])["layer"].agg(list).to_dict()
    assert len(layers) == 6
    for tower in ("vision", "text"):
        assert layers[tower, "own prompts"] == [-1, 0, 1]
        assert layers[tower, "projected prompts"] == [-1, 0, 1]
        assert layers[tower, "adapter"] == [-1, 0, 1, 2]


def test_an_unused_part_costs_nothing():
    model = small_model()
    for adapter in model.text_adapters:
        torch.nn.init.zeros_(adapter.up.weight)
        torch.nn.init.zeros_(adapter.up.bias)
    table = probes.knock_out(model, loaded_split(model), "fp32")
    without_adapter = table.query("tower == 'text' and part == 'adapter'")
    assert len(without_adapter) == 4
    assert (without_adapter["lost"] == 0).all()


def test_only_adapters_are_taken_out_of_a_model_without_prompts():
    model = small_model(text_to_vision=False, vision_to_text=False)
    table = probes.knock_out(model, loaded_split(model), "fp32")
    assert set(table["part"]) == {"adapter"}
