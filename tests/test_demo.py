"""The search demo without a browser: every action against the gallery and the probes, and every
kind of bad input."""

from __future__ import annotations

import datetime
import html
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from cskt import CSKTConfig, CSKTError, demo, relevance, training
from cskt.data.images import resize
from cskt.data.pipeline import normalize
from cskt.gallery import Gallery
from tests.tiny_runs import register_backbone, tiny_config, tiny_model, write_dataset

IMAGES = np.random.default_rng(0).integers(0, 255, (20, 32, 16, 3), dtype=np.uint8)
HOSTILE = '<img src=x onerror="alert(1)">'
FACTS = [
    {"identity": i // 2, "camera": [HOSTILE, "c2", "c'3\"\\"][i % 3], "source": f"<b>{i}.png"}
    for i in range(20)
]
QUERY = "a woman in a red coat"


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    """Twenty images in the galleries of two models."""
    folder, config = tmp_path_factory.mktemp("galleries"), CSKTConfig()
    held = {}
    for name, method in (("CSKT", config), ("zero-shot", config.for_method("zero-shot"))):
        held[name] = Gallery(folder / f"{name}.db", tiny_model(method, patch_size=8))
        held[name].add(IMAGES, FACTS)
    yield held
    for gallery in held.values():
        gallery.close()


@pytest.fixture
def shown(galleries):
    return demo.RetrievalDemo(galleries, [f"{QUERY} ", "a man"], {f" {QUERY}": [0, 3]}, "synthetic")


def said(shown) -> str:
    """The message as a reader sees it."""
    return html.unescape(re.sub("<br>", "\n", re.sub("</?div[^>]*>", "", shown.message.value)))


def cards(shown, name: str) -> list:
    """Those that are to be seen."""
    side = shown.views[name]
    return [card for card in side.cards if card.widget in side.box.children]


def ids(shown, name: str = "CSKT") -> list[str]:
    return [card.hit.id for card in cards(shown, name)]


def page(shown) -> str:
    """All html that is shown."""
    views = shown.views.values()
    return "".join(
        [
            shown.message.value,
            shown.heading.value,
            *(view.panel.value for view in views),
            *(card.picture.value for view in views for card in view.cards),
        ]
    )


def upload(shown, name: str, content: bytes) -> None:
    """As the browser does it."""
    shown.upload.value = (
        {
            "name": name,
            "type": "image/png",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": datetime.datetime.now(datetime.UTC),
        },
    )


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_search_shows_what_each_gallery_finds(shown, galleries):
    shown.query.value = QUERY
    for name, gallery in galleries.items():
        expected = gallery.search(QUERY, 10)
        assert ids(shown, name) == [hit.id for hit in expected]
        for rank, (card, hit) in enumerate(zip(cards(shown, name), expected, strict=True), start=1):
            assert f"{rank} · {hit.score:.2f} " in card.picture.value
            assert f"rank {rank} " in card.map.tooltip and f"rank {rank}" in card.more.tooltip
    assert ids(shown, "CSKT") != ids(shown, "zero-shot")
    assert "synthetic" in shown.heading.value and QUERY in shown.heading.value and said(shown) == ""


def test_the_same_words_are_searched_again_by_the_button_only(shown, monkeypatch):
    shown.query.value = QUERY
    seen = []
    monkeypatch.setattr(shown, "show", seen.append)
    shown.query.value = QUERY
    assert seen == []
    shown.button.click()
    assert [asked.text for asked in seen] == [QUERY]


def test_hits_and_camera_and_model_narrow_what_is_shown(shown, galleries):
    shown.examples.value = QUERY
    assert shown.query.value == QUERY
    shown.hits.value = 4
    assert ids(shown) == [hit.id for hit in galleries["CSKT"].search(QUERY, 4)]
    assert [label for label, _ in shown.camera.options] == [
        "all",
        *sorted({fact["camera"] for fact in FACTS}),
    ]
    for camera in ("c2", "c'3\"\\", HOSTILE):
        shown.camera.value = camera
        every = galleries["CSKT"].search(QUERY, 20)
        assert ids(shown) == [hit.id for hit in every if hit.camera == camera][:4]
    shown.sides.value = ["zero-shot"]
    assert shown.results.children == (shown.views["zero-shot"].widget,)
    shown.camera.value = None
    assert ids(shown, "zero-shot") == [hit.id for hit in galleries["zero-shot"].search(QUERY, 4)]
    shown.sides.value = ["CSKT", "zero-shot"]
    assert len(shown.results.children) == 2 and len(ids(shown)) == 4


def test_right_and_wrong_are_framed_where_the_truth_is_known(shown):
    shown.ask(QUERY)
    for card in cards(shown, "CSKT"):
        right = card.hit.identity in (0, 3)
        assert ("✓ right" in card.picture.value, "✗ wrong" in card.picture.value) == (
            right,
            not right,
        )
    assert any(card.hit.identity in (0, 3) for card in cards(shown, "CSKT"))
    shown.ask("somebody else")
    assert not re.search(
        "right|wrong", "".join(card.picture.value for card in cards(shown, "CSKT"))
    )


def test_words_are_worth_what_the_similarity_loses_without_them(shown, galleries):
    shown.ask(QUERY)
    for name, gallery in galleries.items():
        hit, words = gallery.search(QUERY, 1)[0], QUERY.split()
        image = gallery.encode(hit)
        whole, rest = (
            gallery.encode(QUERY),
            [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))],
        )
        expected = [float((whole - gallery.encode(text)) @ image) for text in rest]
        found = shown.word_effects(name, hit)
        assert [word for word, _ in found] == words
        assert (
            np.allclose([value for _, value in found], expected, atol=1e-5)
            and np.ptp(expected) > 1e-4
        )
        panel = shown.views[name].panel.value
        assert re.findall(r"<code>([+-][\d.]+)<", panel) == [f"{value:+.3f}" for _, value in found]
        assert "rank 1" in panel and "<img" not in panel


def test_a_single_word_has_a_bar_too(shown):
    shown.ask("coat")
    assert len(shown.word_effects("CSKT", cards(shown, "CSKT")[0].hit)) == 1


def test_the_longest_bar_belongs_to_the_strongest_word():
    page = demo.word_bars([("red", 0.1), ("<i>", -0.2), ("a", 0.0)])
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", page) == [
        ("50.0", "25.0"),
        ("0.0", "50.0"),
        ("50.0", "0.0"),
    ]
    assert "&lt;i&gt;" in page and demo.word_bars([]).count("<b>") == 0


def test_a_map_shows_what_the_probe_gives_on_both_sides(shown, galleries):
    shown.ask(QUERY)
    card = cards(shown, "CSKT")[2]
    card.map.click()
    for name, gallery in galleries.items():
        pixels = torch.tensor(resize(card.hit.image(), (32, 16)))[None]
        direction = torch.from_numpy(gallery.encode(QUERY))[None]
        expected = relevance.image_relevance(gallery.model, normalize(pixels), direction)[0].numpy()
        panel, order = (
            shown.views[name].panel.value,
            [hit.id for hit in galleries[name].search(QUERY, 10)],
        )
        assert (
            np.allclose(shown.relevance(name, card.hit), expected)
            and expected.shape == (4, 2)
            and expected.any()
        )
        assert re.findall(r'title="([\d.]+)"', panel) == [f"{share:.4f}" for share in expected.flat]
        score = gallery.encode(card.hit) @ gallery.encode(QUERY)
        assert f"{html.escape(card.hit.label())}: similarity {score:.3f}." in panel
        place = (
            f"rank {order.index(card.hit.id) + 1}<"
            if card.hit.id in order
            else "not among the hits"
        )
        assert place in panel and 'alt="' in panel


def test_more_like_a_hit_is_the_gallery_s_own_search(shown, galleries):
    shown.ask(QUERY)
    card = cards(shown, "zero-shot")[3]
    hit = card.hit
    card.more.click()
    for name, gallery in galleries.items():
        assert ids(shown, name) == [each.id for each in gallery.search(hit, 10)]
        assert ids(shown, name)[0] == hit.id
        marks = ["✓ right" in each.picture.value for each in cards(shown, name)]
        assert marks == [each.hit.identity == hit.identity for each in cards(shown, name)]
        assert "<code>" not in shown.views[name].panel.value  # a picture has no words
    assert (
        "more like" in shown.heading.value
        and "<img" in shown.heading.value
        and shown.examples.value == ""
    )
    cards(shown, "CSKT")[1].map.click()
    assert "<img" in shown.views["CSKT"].panel.value


def test_the_history_runs_a_query_again(shown):
    shown.ask("a man")
    first = ids(shown)
    shown.ask(QUERY)
    cards(shown, "CSKT")[0].more.click()
    assert [label[:5] for _, label in shown.earlier.options] == ["more ", "“a wo", "“a ma"]
    assert shown.earlier.value.startswith("more like") and ids(shown) != first
    shown.earlier.value = "“a man”"
    assert ids(shown) == first and shown.query.value == shown.examples.value == "a man"
    shown.ask(QUERY)
    assert len(shown.earlier.options) == 3, "nothing twice"
    for number in range(demo.KEPT):
        shown.ask(f"a man {number}")
    assert len(shown.earlier.options) == demo.KEPT and "“a man”" not in shown.history


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_a_picture_of_one_s_own_is_searched_for(shown, galleries, mode):
    picture = (
        Image.fromarray(IMAGES[7]).convert(mode)
        if mode != "I;16"
        else Image.new(mode, (9, 20), 1000)
    )
    upload(shown, f"{HOSTILE}.png", png(picture))
    assert said(shown) == "" and shown.upload.value == ()
    assert ids(shown) == [hit.id for hit in galleries["CSKT"].search(picture, 10)]
    assert "&lt;img src=x" in shown.heading.value and "<img src=x" not in page(shown)
    if mode == "RGB":
        assert cards(shown, "CSKT")[0].hit.score == pytest.approx(1, abs=1e-5)


BAD_FILES = {
    "notes.png": (b"just text", "not an image"),
    "empty.jpg": (b"", "not an image"),
    "cut.png": (png(Image.fromarray(IMAGES[0]))[:600], "cannot be read"),
    "huge.png": (png(Image.new("1", (9000, 9000))), "too large (9000 x 9000 pixels"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_picture_gets_a_sentence_and_changes_nothing(shown, name):
    shown.ask(QUERY)
    before, kept = ids(shown), list(shown.history)
    upload(shown, name, BAD_FILES[name][0])
    assert said(shown).startswith(f"Not done: {name}: {BAD_FILES[name][1]}")
    assert ids(shown) == before and list(shown.history) == kept and QUERY in shown.heading.value
    upload(shown, "good.png", png(Image.fromarray(IMAGES[1])))
    assert "good.png" in shown.heading.value and said(shown) == ""


@pytest.mark.parametrize(
    "query, sentence",
    [
        ("", "type a description"),
        ("   \t ", "type a description"),
        ("x" * 10_000, "10000 characters; shorten it to 500"),
        ("coat " * 101, "504 characters"),
    ],
)
def test_a_bad_query_gets_a_sentence_and_changes_nothing(shown, query, sentence):
    shown.button.click()
    assert "type a description" in said(shown) and shown.results.children == ()
    shown.ask(QUERY)
    before, heading = ids(shown), shown.heading.value
    shown.query.value = query
    shown.button.click()
    assert said(shown).startswith("Not done: ") and sentence in said(shown)
    assert ids(shown) == before and shown.heading.value == heading
    shown.hits.value = 3
    assert ids(shown) == before[:3] and said(shown) == "", (
        "what was asked before is still what is shown"
    )


@pytest.mark.parametrize(
    "query", ["😀🧥", "穿红衣服的女人", "<script>alert(1)</script>", HOSTILE, "a\x00b", "‮tac"]
)
def test_other_scripts_and_markup_are_only_text(shown, query):
    shown.query.value = query
    assert len(ids(shown)) == 10 and said(shown) == ""
    assert html.escape(query) in shown.heading.value
    cards(shown, "CSKT")[0].map.click()
    assert not re.search(r"<script|<img src=x|<b>\d", page(shown))
    assert "&lt;b&gt;" in page(shown), "names of files are shown as text"


def test_more_hits_than_there_are(shown):
    shown.hits.value = 30
    shown.ask(QUERY)
    assert len(ids(shown)) == 20 and said(shown) == "The gallery holds only 20 images."
    shown.camera.value = "c2"
    assert len(ids(shown)) == 7 and said(shown) == "Only 7 images fit the filter."
    shown.hits.value = 10_000
    assert shown.hits.value == demo.MOST


def test_what_the_model_does_not_read_is_said_by_side(shown, galleries, monkeypatch):
    shown.ask("coat " * 70)
    assert (
        said(shown)
        == "CSKT: Only the first 67 tokens of a description are read; the rest has no effect."
    )
    for gallery in galleries.values():
        known = set(gallery.model.tokenizer.encode("a coat"))
        monkeypatch.setattr(gallery.model, "known_tokens", known)
    shown.ask("a blue coat")
    assert said(shown) == "This backbone has never seen: blue."


def test_every_picture_has_a_text_in_its_place(shown):
    upload(shown, "mine.png", png(Image.fromarray(IMAGES[3])))
    cards(shown, "CSKT")[0].map.click()
    tags = re.findall("<img[^>]*>", page(shown))
    assert len(tags) >= 20 and all(re.search('alt="[^"]+"', tag) for tag in tags)


def test_a_folder_is_added_to_every_gallery(tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "good.png").write_bytes(png(Image.fromarray(IMAGES[0])))
    (folder / "cut.png").write_bytes(BAD_FILES["cut.png"][0])
    (folder / f"{'<i>'}notes.txt").write_text("text")
    models = {"CSKT": CSKTConfig(), "zero-shot": CSKTConfig().for_method("zero-shot")}
    galleries = {
        name: Gallery(tmp_path / f"{name}.db", tiny_model(config))
        for name, config in models.items()
    }
    for gallery in galleries.values():
        gallery.add(IMAGES[1:4], [{"camera": "c1"}] * 3)
    shown, progress = demo.RetrievalDemo(galleries), []
    shown.ask(QUERY)
    shown.message.observe(lambda change: progress.append(said(shown)), names="value")
    shown.folder.value = f" {folder} "
    shown.adder.click()
    assert "CSKT: 3 of 3 files read …" in progress and "zero-shot: 3 of 3 files read …" in progress
    assert len(galleries["CSKT"]) == len(galleries["zero-shot"]) == 4 and len(ids(shown)) == 4
    lines = said(shown).split("\n")
    assert lines[0] == "1 images added, 0 known already, 2 files skipped." and len(lines) == 3
    assert "cut.png: cannot be read" in said(shown) and "notes.txt: not an image." in said(shown)
    assert "<i>" not in shown.message.value and not shown.adder.disabled
    shown.adder.click()
    assert said(shown).startswith("0 images added, 1 known already, 2 files skipped.")
    for name, sentence in (
        ("", "name a folder"),
        ("  ", "name a folder"),
        (str(tmp_path / "gone"), "is not a folder"),
        (str(folder / "good.png"), "is not a folder"),
    ):
        shown.folder.value = name
        shown.adder.click()
        assert (
            said(shown).startswith("Not done: ")
            and sentence in said(shown)
            and len(ids(shown)) == 4
        )
    assert not shown.adder.disabled
    gone = cards(shown, "CSKT")[0].hit
    galleries["zero-shot"].delete(f"id == '{gone.id}'")
    shown.explain(gone)
    assert "no longer in the gallery" in shown.views["zero-shot"].panel.value
    assert "similarity" in shown.views["CSKT"].panel.value
    before = ids(shown)
    shown.ask(gone)
    assert "no longer in the gallery" in said(shown) and ids(shown) == before
    for gallery in galleries.values():
        gallery.close()


def test_a_fault_of_ours_is_not_hidden(shown, monkeypatch):
    monkeypatch.setattr(demo, "word_differences", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shown.ask(QUERY)
    assert said(shown) == "This failed and should not have: ZeroDivisionError: division by zero"


def test_a_demo_of_one_gallery_has_no_model_to_choose(galleries):
    shown = demo.RetrievalDemo({"mine": galleries["CSKT"]})
    shown.ask(QUERY)
    assert len(ids(shown, "mine")) == 10 and len(shown.views["mine"].widget.children) == 2
    assert shown.sides not in shown.widget.children[2].children
    with pytest.raises(CSKTError, match="at least one gallery"):
        demo.RetrievalDemo({})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    register_backbone(folder)
    return training.train(tiny_config(write_dataset(folder / "data"), folder / "run", epochs=1))


def test_the_demo_of_a_run_compares_it_with_the_model_before_training(run, monkeypatch):
    shown = demo.run_demo(run, examples=3)
    assert list(shown.galleries) == ["CSKT", "zero-shot"] and all(
        len(each) == 12 for each in shown.galleries.values()
    )
    assert shown.galleries["CSKT"].record["model"] == run.load_model().fingerprint()
    assert shown.galleries["zero-shot"].model.num_trainable == 0
    assert len(shown.examples.options) == 4 and "12 test images of CUHK-PEDES" in shown.note
    assert "synthetic" not in shown.note
    shown.examples.value = shown.examples.options[1][1]
    right = shown.truth[shown.asked.text]
    assert ["✓ right" in card.picture.value for card in cards(shown, "CSKT")] == [
        card.hit.identity in right for card in cards(shown, "CSKT")
    ]
    assert len(list(run.folder.glob("gallery-*.db"))) == 2
    for gallery in shown.galleries.values():
        gallery.close()
    monkeypatch.setattr(Gallery, "add", lambda *_: pytest.fail("encoded twice"))
    again = demo.run_demo(run, examples=3)
    again.ask(shown.asked.text)
    assert ids(again) == ids(shown)
    for gallery in again.galleries.values():
        gallery.close()


def test_the_demo_of_a_gallery(tmp_path):
    with pytest.raises(CSKTError, match="there is no gallery at"):
        demo.gallery_demo(str(tmp_path / "gone.db"))
    Gallery(tmp_path / "g.db", "cskt-mini").close()
    shown = demo.gallery_demo(str(tmp_path / "g.db"))
    shown.ask(QUERY)
    assert list(shown.galleries) == ["g.db"] and said(shown) == "The gallery holds only 0 images."
    shown.galleries["g.db"].add(IMAGES)
    shown.show()
    cards(shown, "g.db")[1].map.click()
    assert "<img" in shown.views["g.db"].panel.value, (
        "a model that a search has loaded has gradients"
    )
    shown.galleries["g.db"].close()
