"""Attention to prompts: shares that add up, and maps in their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cskt.analysis import attention
from cskt.data.augment import normalize
from tests.probe_models import CAPTIONS, random_pictures, small_model

KEY = ["tower", "reader", "prompts", "layer", "head"]
OWN = ["own 1", "own 2"]
PROJECTED = ["projected 1", "projected 2"]


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def images():
    return normalize(random_pictures(3, seed=1))


@pytest.fixture(scope="module")
def token_ids(model):
    return model.tokenize(CAPTIONS)


@pytest.fixture(scope="module")
def table(model, images, token_ids):
    return attention.traffic(model, images, token_ids)


def test_there_is_a_row_per_tower_layer_head_reader_and_kind(table):
    assert len(table) == 2 * 3 * 2 * 2 * 2
    assert not table.duplicated(KEY).any()
    assert table["share"].between(0, 1).all()


@pytest.mark.parametrize("kind", ["own", "projected"])
def test_shares_of_patches_are_those_of_the_maps(model, images, table, kind):
    own = model.prompts.own("vision")
    of_kind = own if kind == "own" else ~own
    maps = attention.prompt_maps(model, images)
    to_kind = maps[:, :, :, of_kind].sum(3)
    by_layer_and_head = to_kind.mean((0, 3, 4))
    patches = table.query("reader == 'patches' and prompts == @kind")
    in_order = patches.sort_values(["layer", "head"])
    expected = by_layer_and_head.flatten()
    np.testing.assert_allclose(in_order["share"], expected, rtol=1e-5)


def test_an_even_share_counts_everything_that_a_patch_sees(table):
    patches = table[table["reader"] == "patches"]
    even = 2 / 13  # two prompts of a kind; class token, eight patches, four prompts
    np.testing.assert_allclose(patches["uniform"], even, rtol=1e-5)


@pytest.fixture(scope="module")
def one_caption(model, images, token_ids):
    """Of "a man in red": the table, by its keys, and the attention (layers, heads, P, 77 - P) that
    the tokens behind the prompts pay to them."""
    ids = token_ids[:1]
    table = attention.traffic(model, images, ids)
    record = attention.record_tower(model, "text", ids)
    weights = torch.cat(list(record.attention.values()))
    to_prompts = weights[:, :, 5:, 1:5].transpose(2, 3)
    return table.set_index(KEY), to_prompts


def test_the_share_of_the_end_token_is_that_of_its_column(one_caption):
    table, maps = one_caption
    row = table.loc["text", "end token", "projected", 2, 1]
    projected = slice(2, 4)
    share = maps[2, 1, projected, 4].sum()
    assert row["share"] == pytest.approx(share.item(), rel=1e-5)
    assert row["uniform"] == pytest.approx(2 / 10), "start, four prompts, four words and itself"


def test_the_share_of_the_words_is_the_mean_over_their_columns(one_caption):
    table, maps = one_caption
    row = table.loc["text", "words", "own", 0, 0]
    own = slice(0, 2)
    shares = maps[0, 0, own, :4].sum(0)
    assert row["share"] == pytest.approx(shares.mean().item(), rel=1e-5)


def test_shares_do_not_depend_on_the_batch_size(model, images, token_ids, table):
    single = attention.traffic(model, images, token_ids, batch_size=1)
    np.testing.assert_allclose(table["share"], single["share"], rtol=1e-5)
    np.testing.assert_allclose(table["uniform"], single["uniform"], rtol=1e-5)


def test_short_rows_of_ids_are_read_as_they_are(model, images, token_ids, table):
    short = attention.traffic(model, images, token_ids[:, :12])
    np.testing.assert_allclose(short["share"], table["share"], rtol=1e-5)


def test_only_the_layers_asked_for_are_read(model, images, token_ids):
    table = attention.traffic(model, images, token_ids, layers=[1])
    assert set(table["layer"]) == {1}
    third = attention.prompt_maps(model, images, layers=[2])
    every = attention.prompt_maps(model, images)
    torch.testing.assert_close(third[:, 0], every[:, 2])


def test_own_prompts_stand_behind_projected_ones_in_vision_only(model):
    assert model.prompts.own("vision").tolist() == [False, False, True, True]
    assert attention.prompt_names(model, "vision") == PROJECTED + OWN
    assert attention.prompt_names(model, "text") == OWN + PROJECTED


def test_without_prompts_there_is_no_traffic(images, token_ids):
    model = small_model(text_to_vision=False, vision_to_text=False)
    assert attention.traffic(model, images, token_ids).empty
    maps = attention.prompt_maps(model, images)
    assert maps.shape == (3, 3, 2, 0, 4, 2)


def test_one_direction_leaves_one_kind_of_prompt_to_each_tower(images, token_ids):
    model = small_model(vision_to_text=False)
    table = attention.traffic(model, images, token_ids)
    kinds = table[["tower", "prompts"]].drop_duplicates()
    assert kinds.values.tolist() == [["vision", "projected"], ["text", "own"]]
    assert attention.prompt_names(model, "text") == OWN
    assert attention.prompt_names(model, "vision") == PROJECTED


def test_the_table_of_shares_is_the_mean_over_layers_and_heads(table):
    before = table.assign(share=0.25)
    shares = attention.traffic_table(before, table, ("class token", "end token"))
    assert list(shares["tower"]) == ["vision", "vision", "text", "text"]
    assert (shares["before training"] == 25).all()
    mean = table.query("reader == 'end token' and prompts == 'own'").mean(numeric_only=True)
    row = shares.query("tower == 'text' and prompts == 'own'").iloc[0]
    assert row["trained"] == pytest.approx(100 * mean["share"])
    assert row["if spread evenly"] == pytest.approx(100 * mean["uniform"])


def test_recording_leaves_the_mode_as_it_was(images):
    model = small_model().train()
    attention.prompt_maps(model, images)
    assert model.training
