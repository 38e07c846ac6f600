"""Probes read what the towers do: shares that add up, maps in their place, known answers, and their
notebook."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import open_clip
import pandas as pd
import papermill
import pytest
import torch
from matplotlib import pyplot as plt

from cskt import (
    CSKT,
    CSKTConfig,
    CSKTError,
    TrainConfig,
    probe_figures,
    probes,
    style,
    train,
    views,
)
from cskt.data.benchmarks import Split
from cskt.data.synthetic import synthetic_dataset
from cskt.data.synthetic.mentions import Mention
from cskt.evaluation import LoadedSplit
from cskt.model.cskt import PARTS

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
    table = probes.knock_out(model, loaded(model), "fp32")
    found = set(table[["tower", "part", "layer"]].itertuples(index=False, name=None))
    assert found == {
        (tower, part, layer)
        for tower, part in itertools.product(("vision", "text"), PARTS)
        for layer in ([-1, 0, 1, 2] if part == "adapter" else [-1, 0, 1])
    }
    lines = probes.knock_out_findings(table)
    assert len(lines) == 6 and lines[0].startswith("vision, own prompts: R@1 loses")


def test_an_unused_part_costs_nothing():
    model = small_model()
    for adapter in model.text_adapters:
        torch.nn.init.zeros_(adapter.up.weight), torch.nn.init.zeros_(adapter.up.bias)
    table = probes.knock_out(model, loaded(model), "fp32")
    assert (table[(table["tower"] == "text") & (table["part"] == "adapter")]["lost"] == 0).all()


# Coupling and space


def test_coupling_of_prompts_that_are_alike():
    model = small_model(prompt_length=3)
    with torch.no_grad():
        for layer in range(3):  # the map gives every text prompt as the vision prompt, in vision
            model.prompts.text_to_vision[layer].weight.zero_()
            model.prompts.text_to_vision[layer].bias.copy_(model.prompts.vision[layer][0])
            model.prompts.vision[layer].copy_(model.prompts.vision[layer][:1].expand(3, -1))
    table = probes.coupling(model)
    assert table[table["tower"] == "vision"]["cosine"].tolist() == pytest.approx([1, 1, 1])
    assert table["CKA"].dropna().between(0, 1 + 1e-6).all() and len(table) == 6
    line = probes.coupling_findings(
        table, [{"T2V rank": 9.0, "V2T rank": 8.0}, {"T2V rank": 5.0, "V2T rank": 8.0}]
    )
    assert "vision: mean cosine 1.00" in line
    assert "T2V: effective rank 9 after the first epoch, 5 after the last" in line


def test_effective_rank_counts_directions():
    model = small_model()
    with torch.no_grad():
        for each in model.prompts.text_to_vision:
            each.weight.zero_()
            each.weight[:5, :5] = 2 * torch.eye(5)
    measured = model.prompts.spectrum()
    assert measured["T2V rank"] == pytest.approx(5) and measured["T2V norm"] == pytest.approx(
        2 * 5**0.5
    )
    assert np.isnan(small_model(vision_to_text=False).prompts.spectrum()["V2T norm"])


def test_a_prompt_at_a_word_is_told_from_one_between_words():
    model = small_model()
    token = model.tokenize("red")[0, 1]
    with torch.no_grad():
        model.prompts.text[0][0] = 3 * model.backbone.token_embedding.weight[token]
    table = probes.nearest_words(model)
    assert table["prompt"].tolist() == ["own 1", "own 2", "projected 1", "projected 2"]
    assert table["nearest words"][0].split(", ")[0] == "red" and table["cosine"][
        0
    ] == pytest.approx(1, abs=1e-5)
    assert table["at a word"][0] == "yes" and table["usual"].between(0, 1).all()


def test_modality_gap_and_planes():
    points = torch.nn.functional.normalize(
        torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    assert probes.modality_gap(points, points) == 0
    assert probes.modality_gap(torch.eye(2)[:1], torch.eye(2)[1:]) == pytest.approx(2**0.5)
    flat = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[3.0, 0, 0], [0, 1, 0]]
    )
    distances = [
        torch.cdist(x.double(), x.double()) for x in (flat, torch.from_numpy(probes.plane(flat)))
    ]
    torch.testing.assert_close(*distances)
    assert np.array_equal(probes.plane(points, "t-SNE"), probes.plane(points, "t-SNE"))
    with pytest.raises(CSKTError, match="'PCA' or 't-SNE'"):
        probes.plane(points, "UMAP")


# Figures and the notebook


def test_figures_show_every_panel():
    style.set_style()
    rows = [
        dict(
            tower=tower, layer=layer, head=head, reader=reader, prompts=kind, share=0.2, uniform=0.1
        )
        for tower, reader in (("vision", "class token"), ("text", "end token"))
        for kind in ("own", "projected")
        for layer in range(2)
        for head in range(3)
    ]
    table = pd.DataFrame(rows)
    figure = probe_figures.traffic_maps(table, table, probes.FEATURE_READERS)
    heat = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(heat) == 8 and heat[0].collections[0].get_array().ravel().tolist() == pytest.approx(
        [1.0] * 6
    )
    picture = np.full((64, 32, 3), 99, np.uint8)
    assert (
        len(
            probe_figures.prompt_overlays(
                picture, np.ones((2, 3, 4, 2)), ["a", "b", "c"], [0, 5]
            ).axes
        )
        == 6
    )
    maps = {"zero-shot": np.ones((4, 2)), "CSKT": np.eye(4)[:, :2]}
    assert len(probe_figures.relevance_row(picture, maps, picture[..., 0] > 0).axes) == 3
    bars = probe_figures.word_relevance(["red", "coat"], {"CSKT": np.array([1.0, 3.0])}).axes[0]
    assert sorted(
        patch.get_height() for patch in bars.patches if patch.get_height()
    ) == pytest.approx([0.25, 0.75])
    lost = pd.DataFrame(
        [
            dict(tower=tower, part="adapter", layer=layer, lost=1.0 * layer)
            for tower in ("vision", "text")
            for layer in (-1, 0, 1)
        ]
    )
    assert list(probe_figures.knock_out_curves(lost).axes[0].get_lines()[0].get_ydata()) == [0, 1]
    points = {"PCA": np.random.default_rng(0).random((6, 2))}
    assert (
        len(
            probe_figures.space(
                points, np.arange(6) < 3, {"person": [1, 1, 2] * 2, "colour": list("aabbcc")}
            ).axes
        )
        == 2
    )
    plt.close("all")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").mkdir()
    synthetic_dataset("SynthPEDES-A", folder / "data", identities=(12, 4, 8))
    return folder


def execute(project, **parameters):
    parameters = dict(
        dataset="SynthPEDES-A", data_root=str(project / "data"), epochs=1, examples=6, **parameters
    )
    result = papermill.execute_notebook(
        ROOT / "notebooks" / "prompts.ipynb",
        project / "out.ipynb",
        parameters,
        cwd=project,
        progress_bar=False,
    )
    outputs = [out for cell in result.cells for out in cell.get("outputs", [])]
    return outputs, "\n".join(
        str(out.get("text", "")) + str(out.get("data", "")) for out in outputs
    )


@pytest.mark.timeout(300)
def test_the_notebook_shows_every_part(project):
    outputs, text = execute(project)
    assert (
        "vision, projected prompts: class token" in text
        and "R@1 loses" in text
        and "modality gap" in text
    )
    assert (
        "pointing: CSKT less full fine-tuning" in text
        and "effective rank" in text
        and views.NO_PROMPTS not in text
    )
    assert sum("image/svg+xml" in out.get("data", {}) for out in outputs) >= 10


@pytest.mark.timeout(300)
def test_a_run_without_prompts_says_so(project):
    outputs, text = execute(project, method="dat", layers=[1, 6])
    assert (
        text.count(views.NO_PROMPTS) >= 4
        and "vision, adapter: R@1 loses" in text
        and "pointing: dat less" in text
    )


def test_a_view_of_what_does_not_exist_is_refused(project):
    run = train(
        TrainConfig.mini(
            data_root=str(project / "data"),
            epochs=1,
            method="zero-shot",
            output=str(project / "bare"),
        )
    )
    for arguments in ((99,), (0, [7]), (0, [0])):
        with pytest.raises(CSKTError, match="test image from 0 to 31 and layers from 1 to 6"):
            views.View(run, *arguments)
