"""Attention to prompts: shares that add up, and maps in their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cskt import attention
from cskt.data.pipeline import normalize
from tests.probe_models import CAPTIONS, random_pictures, small_model

KEY = ["tower", "reader", "prompts", "layer", "head"]


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def images():
    return normalize(random_pictures(3, seed=1))


@pytest.fixture(scope="module")
def token_ids(model):
    return model.tokenize(CAPTIONS)


def by_key(table):
    return table.set_index(KEY).sort_index()


def test_there_is_a_row_per_tower_layer_head_reader_and_kind(model, images, token_ids):
    table = attention.traffic(model, images, token_ids)
    assert len(table) == 2 * 3 * 2 * 2 * 2
    assert table["share"].between(0, 1).all()


@pytest.mark.parametrize("kind", ["own", "projected"])
@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize("head", range(2))
def test_shares_of_patches_are_those_of_the_maps(model, images, token_ids, kind, layer, head):
    table = by_key(attention.traffic(model, images, token_ids))
    of_kind = model.prompts.own("vision") == (kind == "own")
    maps = attention.prompt_maps(model, images)[:, layer, head, of_kind]
    row = table.loc["vision", "patches", kind, layer, head]
    assert row["share"] == pytest.approx(maps.sum(1).mean().item(), rel=1e-5)
    assert row["uniform"] == pytest.approx(2 / 13), "class token, eight patches, four prompts"


def test_shares_of_words_are_those_of_the_maps(model, images, token_ids):
    one_caption = token_ids[:1]  # a man in red
    table = by_key(attention.traffic(model, images, one_caption))
    maps = attention.word_maps(model, one_caption)
    assert maps.shape == (1, 3, 2, 4, 72)
    of_end = table.loc["text", "end token", "projected", 2, 1]
    assert of_end["share"] == pytest.approx(maps[0, 2, 1, 2:, 4].sum().item(), rel=1e-5)
    assert of_end["uniform"] == pytest.approx(2 / 10), "start, four prompts, four words and itself"
    of_words = table.loc["text", "words", "own", 0, 0]
    expected = maps[0, 0, 0, :2, :4].sum(0).mean().item()
    assert of_words["share"] == pytest.approx(expected, rel=1e-5)


def test_shares_do_not_depend_on_the_batch_size(model, images, token_ids):
    whole = attention.traffic(model, images, token_ids)
    single = attention.traffic(model, images, token_ids, batch_size=1)
    np.testing.assert_allclose(whole["share"], single["share"], rtol=1e-5)
    np.testing.assert_allclose(whole["uniform"], single["uniform"], rtol=1e-5)


def test_short_rows_of_ids_are_read_as_they_are(model, images, token_ids):
    short = attention.traffic(model, images, token_ids[:, :12])
    long = attention.traffic(model, images, token_ids)
    np.testing.assert_allclose(short["share"], long["share"], rtol=1e-5)


def test_only_the_layers_asked_for_are_read(model, images, token_ids):
    table = attention.traffic(model, images, token_ids, layers=[1])
    assert set(table["layer"]) == {1}
    third = attention.prompt_maps(model, images, layers=[2])
    torch.testing.assert_close(third[:, 0], attention.prompt_maps(model, images)[:, 2])


def test_the_own_prompts_stand_behind_the_projected_ones_in_vision_only(model):
    assert model.prompts.own("vision").tolist() == [False, False, True, True]
    own = ["own 1", "own 2"]
    projected = ["projected 1", "projected 2"]
    assert attention.prompt_names(model, "vision") == projected + own
    assert attention.prompt_names(model, "text") == own + projected


def test_without_prompts_there_is_no_traffic(images, token_ids):
    model = small_model(text_to_vision=False, vision_to_text=False)
    assert attention.traffic(model, images, token_ids).empty
    assert attention.prompt_maps(model, images).shape == (3, 3, 2, 0, 4, 2)


def test_one_direction_leaves_one_kind_of_prompt_to_each_tower(images, token_ids):
    model = small_model(vision_to_text=False)
    table = attention.traffic(model, images, token_ids)
    kinds = set(zip(table["tower"], table["prompts"], strict=True))
    assert kinds == {("text", "own"), ("vision", "projected")}
    assert attention.prompt_names(model, "text") == ["own 1", "own 2"]
    assert attention.prompt_names(model, "vision") == ["projected 1", "projected 2"]


def test_the_table_of_shares_is_the_mean_over_layers_and_heads(model, images, token_ids):
    after = attention.traffic(model, images, token_ids)
    before = after.assign(share=0.25)
    table = attention.traffic_table(before, after, ("class token", "end token"))
    assert list(table["tower"]) == ["vision", "vision", "text", "text"]
    assert (table["before training"] == 25).all()
    end_to_own = after.query("reader == 'end token' and prompts == 'own'")
    row = table.query("tower == 'text' and prompts == 'own'").iloc[0]
    assert row["trained"] == pytest.approx(100 * end_to_own["share"].mean())
    assert row["if spread evenly"] == pytest.approx(100 * end_to_own["uniform"].mean())


def test_recording_leaves_the_mode_as_it_was(images):
    model = small_model().train()
    attention.prompt_maps(model, images)
    assert model.training
