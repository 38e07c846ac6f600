"""The widgets: right order and right numbers, plain messages, nothing in a text is ever run."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from cskt import CSKTConfig, CSKTError, probes, widgets
from cskt.data.pipeline import normalize
from tests.tiny_runs import tiny_model

IMAGES = np.random.default_rng(0).integers(0, 255, (2, 32, 16, 3), dtype=np.uint8)
HOSTILE = "a <script>alert(1)</script> blueish café 👨‍👩‍👧 coat"


@pytest.fixture(scope="module")
def prompted():
    """Three layers and four heads in the vision tower, two of each in the text tower, prompts of
    unlike strength."""
    model = tiny_model(CSKTConfig(prompt_length=2), patch_size=8, vision_layers=3, head_width=8)
    for parameter in model.prompts.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def explorer(prompted):
    return widgets.PromptExplorer(prompted, IMAGES, ["a woman in a red coat", HOSTILE])


def numbers(page: str) -> list[str]:
    """Those of the heading: the lowest and the highest share, for patches also their ratios and the
    uniform share."""
    return re.findall(r"\d+\.\d+", re.sub(r"<[^>]*>", "", page.split("<div")[0]))


def expected(explorer, tower: str, layer: int, head: str, row: int) -> np.ndarray:
    """What the probes give, by row of the prompt; head "mean" or counted from 1."""
    model, index = explorer.model, (explorer.image if tower == "vision" else explorer.caption).value
    if tower == "vision":
        pixels = normalize(torch.tensor(IMAGES[index]).permute(2, 0, 1)[None])
        maps = probes.prompt_maps(model, pixels, [layer])
    else:
        maps = probes.word_maps(model, model.tokenize(explorer.captions[index]), [layer])
    maps = maps[0, 0].mean(0) if head == "mean" else maps[0, 0, int(head) - 1]
    return maps[row].numpy()


@pytest.mark.parametrize(
    "layer, head, prompt, rows",
    [
        (1, "mean", "own 1", (2, 0)),
        (2, "mean", "own 1", (2, 0)),
        (2, "2", "own 2", (3, 1)),
        (1, "1", "projected 2", (1, 3)),
    ],
)
def test_the_explorer_shows_what_the_probes_give(explorer, layer, head, prompt, rows):
    explorer.layer.value, explorer.head.value, explorer.prompt.value = layer, head, prompt
    explorer.image.value = 1
    patches = expected(explorer, "vision", layer - 1, head, rows[0])
    assert np.allclose(explorer.attention("vision"), patches, atol=1e-6) and patches.shape == (4, 2)
    low, high, uniform = patches.min(), patches.max(), 1 / (1 + 8 + 4)
    assert numbers(explorer.picture.value) == [
        f"{low:.4f}",
        f"{high:.4f}",
        f"{low / uniform:.2f}",
        f"{high / uniform:.2f}",
        f"{uniform:.4f}",
    ]
    assert re.findall(r'title="([\d.]+)"', explorer.picture.value) == [
        f"{share:.4f}" for share in patches.flat
    ]
    words = expected(explorer, "text", layer - 1, head, rows[1])[:7]
    assert re.findall(r"<small>([\d.]+)<", explorer.words.value) == [
        f"{share:.4f}" for share in words
    ]
    assert numbers(explorer.words.value) == [f"{words.min():.4f}", f"{words.max():.4f}"]


def test_every_choice_redraws_both_views_and_asks_the_model_once(explorer, monkeypatch):
    asked = []
    for name in ("prompt_maps", "word_maps"):
        probe = getattr(widgets, name)
        monkeypatch.setattr(
            widgets, name, lambda *a, probe=probe, name=name: asked.append(name) or probe(*a)
        )
    seen = [(explorer.picture.value, explorer.words.value)]
    for control, value in (
        (explorer.layer, 2),
        (explorer.head, "2"),
        (explorer.prompt, "projected 1"),
    ):
        control.value = value
        seen.append((explorer.picture.value, explorer.words.value))
    assert (
        len({picture for picture, _ in seen}) == len({words for _, words in seen}) == 4
        and asked == []
    )
    explorer.image.value = 1
    explorer.caption.value = 1
    assert asked == ["prompt_maps", "word_maps"]
    explorer.image.value = explorer.caption.value = 0
    assert (explorer.picture.value, explorer.words.value) == seen[-1] and len(asked) == 2


def test_the_explorer_forgets_its_oldest_maps(explorer, monkeypatch):
    monkeypatch.setattr(widgets, "CACHED_MAPS", 2)
    explorer.image.value = 1
    explorer.caption.value = 1
    assert list(explorer._maps) == [("vision", 1), ("text", 1)]


def test_the_strongest_patch_is_the_most_opaque(explorer):
    opacities = [
        float(found)
        for found in re.findall(r"rgba\([\d,]+,([\d.]+)\)\"></div>", explorer.picture.value)
    ]
    assert np.argmax(opacities) == explorer.attention("vision").argmax()
    assert min(opacities) == 0 and max(opacities) == widgets.STRONGEST


def test_words_are_whole_and_only_text(explorer):
    explorer.caption.value = 1
    words, places = zip(*explorer.tokens(), strict=True)
    assert (
        {"blueish", "café", "👨‍👩‍👧", "⟨end⟩"} <= set(words)
        and words[0] == "a"
        and words[-1] == "⟨end⟩"
    )
    assert (
        sum(places, []) == list(range(sum(map(len, places))))
        and len(places[words.index("blueish")]) == 2
    )
    assert "<script" not in explorer.words.value and "&lt;" in explorer.words.value
    mean = explorer.attention("text")[places[words.index("blueish")]].mean()
    assert f"blueish<br><small>{mean:.4f}<" in explorer.words.value
    assert all('alt="image 1' in tag for tag in re.findall("<img[^>]*>", explorer.picture.value))


def test_a_caption_without_room_keeps_its_end_token(prompted):
    explorer = widgets.PromptExplorer(prompted, IMAGES, ["coat " * 200])
    assert (
        len(explorer.tokens()) == len(explorer.attention("text")) == 77 - 1 - prompted.num_prompts
    )
    assert explorer.tokens()[-1][0] == "⟨end⟩" and explorer.tokens()[-2][0] == "coat"


def test_what_one_tower_lacks_is_said(explorer):
    explorer.layer.value = 3
    assert (
        explorer.words.value == "The text tower has no layer 3."
        and "<img" in explorer.picture.value
    )
    explorer.head.value = "4"
    assert explorer.words.value == "The text tower has no layer 3 and no head 4."


def test_one_direction_leaves_own_prompts_to_one_tower():
    model = tiny_model(CSKTConfig(prompt_length=2, vision_to_text=False))
    assert widgets.prompt_names(model, "text") == ["own 1", "own 2"]
    assert widgets.prompt_names(model, "vision") == ["projected 1", "projected 2"]
    explorer = widgets.PromptExplorer(model, IMAGES, ["a coat"])
    assert (
        explorer.picture.value == "The vision tower has no prompt own 1."
        and "<small>" in explorer.words.value
    )


def test_prompt_names_follow_the_rows(prompted):
    own, projected = ["own 1", "own 2"], ["projected 1", "projected 2"]
    assert widgets.prompt_names(prompted, "vision") == projected + own
    assert widgets.prompt_names(prompted, "text") == own + projected


def test_a_model_without_prompts_says_so():
    explorer = widgets.PromptExplorer(
        tiny_model(CSKTConfig().for_method("zero-shot")), IMAGES, ["a coat"]
    )
    assert (
        explorer.widget.children == (explorer.picture, explorer.words)
        and explorer.picture.value == ""
    )
    assert explorer.words.value == "This model has no prompts, so nothing can look at them."


@pytest.mark.parametrize(
    "images, captions, message",
    [
        (IMAGES[:0], ["a"], r"N >= 1, got uint8 \(0, 32, 16, 3\)"),
        (IMAGES[:, :16], ["a"], r"\(N, 32, 16, 3\).*got uint8 \(2, 16, 16, 3\)"),
        (IMAGES[0], ["a"], r"got uint8 \(32, 16, 3\)"),
        (IMAGES / 255, ["a"], "got float64"),
        (None, ["a"], "NoneType"),
        (IMAGES, [], "at least one str"),
        (IMAGES, "a coat", "at least one str"),
        (IMAGES, [None], "at least one str"),
    ],
)
def test_bad_input_to_the_explorer(prompted, images, captions, message):
    with pytest.raises(CSKTError, match=message):
        widgets.PromptExplorer(prompted, images, captions)


def test_words_need_a_tokenizer_that_tells_them(prompted, monkeypatch):
    monkeypatch.setattr(prompted, "tokenizer", lambda texts: None)
    with pytest.raises(CSKTError, match="tokenizer"):
        widgets.PromptExplorer(prompted, IMAGES, ["a coat"])


def test_the_static_view_holds_rounded_maps_and_escaped_text():
    maps = np.linspace(0, 0.1, 2 * 3 * 2 * 8).reshape(2, 3, 2, 4, 2)
    views = [
        widgets.prompt_view(IMAGES, maps, ["</script><b>", "own 1"], '"><i>') for _ in range(2)
    ]
    assert "[[[[0,11,21,32,42,53,63,74],[84," in views[0] and views[0].count("</script>") == 1
    assert not {"<i>", "</script><b>"} & set(re.findall(r"<i>|</script><b>", views[0]))
    assert len({re.search('id="([^"]+)"', view)[1] for view in views}) == 2
    assert views[0].count('alt="image ') == 2 and "http" not in views[0]


@pytest.mark.parametrize(
    "images, maps, message",
    [
        (IMAGES[:1], np.ones((2, 3, 2, 4, 2)), "1 images"),
        (IMAGES, np.ones((2, 3, 1, 4, 2)), "2 prompts"),
        (IMAGES, np.ones((2, 3, 2, 4)), "got"),
        (IMAGES, np.full((2, 3, 2, 4, 2), np.nan), "finite"),
        (IMAGES[:0], np.ones((0, 3, 2, 4, 2)), "N >= 1"),
    ],
)
def test_bad_input_to_the_static_view(images, maps, message):
    with pytest.raises(CSKTError, match=message):
        widgets.prompt_view(images, maps, ["own 1", "own 2"])
