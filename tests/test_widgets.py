"""The search widget: right order, plain messages, nothing in a text is ever run."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch

from cskt import CSKT, CSKTConfig, CSKTError, widgets


@pytest.fixture(scope="module")
def demo():
    torch.manual_seed(0)
    vision = {"image_size": (32, 16), "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    backbone = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    model = CSKT(backbone.eval(), CSKTConfig().for_method("zero-shot")).eval()
    features = torch.nn.functional.normalize(torch.randn(20, 16), dim=-1)
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 16, 3), dtype=np.uint8)
    return widgets.RetrievalDemo(model, features, images, [f"<b>{i}</b>" for i in range(20)], ["a red coat"])


def test_search_ranks_by_cosine(demo):
    order, scores = demo.search("a man in a blue coat", 20)
    text = demo.model.encode_text(demo.model.tokenize(["a man in a blue coat"]), normalize=True)
    expected = (demo.features @ text.T)[:, 0]
    assert sorted(order) == list(range(20)) and scores == sorted(scores, reverse=True)
    assert torch.allclose(expected[order], torch.tensor(scores))


def test_a_click_shows_hits_with_alternative_text_and_escaped_labels(demo):
    demo.query.value, demo.hits.value = "a red coat", 5
    demo.button.click()
    assert demo.output.value.count("<img") == 5 and demo.output.value.count("alt=") == 5
    assert "<b>" not in demo.output.value and "&lt;b&gt;" in demo.output.value


def test_an_example_fills_the_box_and_searches(demo):
    demo.output.value = ""
    demo.examples.value = "a red coat"
    assert demo.query.value == "a red coat" and "<img" in demo.output.value


@pytest.mark.parametrize("query", ["", "   \n ", "x" * 10_000])
def test_bad_queries_get_a_sentence(demo, query):
    demo.query.value = query
    demo.button.click()
    assert demo.output.value == "" and len(demo.message.value) > 20


@pytest.mark.parametrize("query", ["😀🧥", "穿红衣服的女人", "<script>alert(1)</script>"])
def test_other_scripts_and_markup_are_only_text(demo, query):
    demo.query.value = query
    demo.button.click()
    assert "<script>" not in demo.output.value + demo.message.value


def test_more_hits_than_images(demo):
    assert len(demo.search("coat", 500)[0]) == 20


def test_mismatched_gallery(demo):
    with pytest.raises(CSKTError, match="20, 20 and 3"):
        widgets.RetrievalDemo(demo.model, demo.features, demo.images, ["a", "b", "c"])


def test_right_and_wrong_are_told_apart_by_more_than_colour(demo):
    page = widgets.hit_strip(demo.images[:3], [0.3, 0.2, 0.1], ["a", "b", "c"], [True, False, None])
    assert "✓ right" in page and "✗ wrong" in page


def test_example_browser_links_in_the_browser():
    box = widgets.example_browser(["one", "two"], ["<i>1</i>", "<i>2</i>"])
    chooser, stack = box.children
    assert [page.value for page in stack.children] == ["<i>1</i>", "<i>2</i>"] and stack.selected_index == 0
    with pytest.raises(CSKTError, match="2 queries and 1 pages"):
        widgets.example_browser(["one", "two"], ["x"])
