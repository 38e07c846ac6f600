"""The gallery: what a search finds, what it refuses, and what stays after closing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cskt
from cskt import CSKTConfig, CSKTError, Gallery
from cskt.search.indexing import Added
from tests.galleries import facts_of, features, names, pictures
from tests.tiny_runs import BACKBONE, IMAGE_SIZE

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


# What is found


@pytest.mark.numerics
def test_search_ranks_by_cosine(gallery, model):
    tokens = model.tokenize(["a man in a red coat"])
    with torch.no_grad():
        text = model.encode_text(tokens, normalize=True)
    images = features(model, pictures(12))
    cosines = images @ text[0]
    order = cosines.argsort(descending=True)
    hits = gallery.search("a man in a  red coat\n", 12)
    assert names(hits) == [f"image {index}" for index in order]
    scores = [hit.score for hit in hits]
    np.testing.assert_allclose(scores, cosines[order], atol=1e-5)


def test_a_hit_says_what_is_known_of_the_image(gallery):
    (hit,) = gallery.search(pictures(12)[7], 1)
    assert (hit.identity, hit.camera, hit.time) == (3, "c1", "2024-01-08")
    assert dict(hit.extra) == {"floor": 1}
    assert "identity 3, camera c1" in hit.label()
    assert hit.image().size == IMAGE_SIZE[::-1]
    assert hit.thumbnail.is_file()


def numbers_found(gallery, where: str) -> set[int]:
    hits = gallery.search("a red coat", 50, where)
    return {int(hit.source.removeprefix("image ")) for hit in hits}


def test_a_filter_by_camera(gallery):
    assert numbers_found(gallery, "camera == 'c1'") == {1, 4, 7, 10}


def test_a_filter_by_several_identities(gallery):
    assert numbers_found(gallery, "identity in [1, 2]") == {2, 3, 4, 5}


def test_a_filter_by_time_and_a_fact_without_a_field(gallery):
    assert numbers_found(gallery, "time >= '2024-01-05' and floor == 0") == {4, 6, 8, 10}


def test_a_filter_by_a_fact_that_no_image_has(gallery):
    assert numbers_found(gallery, "nothing == 1") == set()


@pytest.mark.numerics
def test_pictures_vectors_and_hits_find_themselves(gallery, model, tmp_path):
    images = pictures(12)
    Image.fromarray(images[4]).save(tmp_path / "4.png")
    vector = features(model, images[4:5])[0]
    queries = [
        images[4],
        Image.fromarray(images[4]),
        tmp_path / "4.png",
        vector,
        7 * vector.numpy(),
        gallery.search(images[4], 1)[0],
    ]
    for query in queries:
        (hit,) = gallery.search(query, 1)
        assert hit.source == "image 4"
        assert hit.score == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "query", ["😀🧥", "穿红衣服的女人", "<script>alert(1)</script>", "'; drop table", "%s {0}"]
)
def test_any_text_is_a_description(gallery, query):
    assert len(gallery.search(query, 3)) == 3


# What is refused


@pytest.mark.parametrize(
    "query, message",
    [
        ("", "type a description"),
        (" \n", "type a description"),
        ("x" * 10_000, "10000 characters"),
        (np.ones(3), r"16 finite numbers.*\(3,\)"),
        (np.full(16, np.nan), "finite"),
        (torch.zeros(16), "not all 0"),
        (Path("nowhere.png"), "nowhere.png"),
        (np.zeros((4, 4)), "uint8 array"),
        (None, "NoneType"),
    ],
)
def test_a_bad_query_gets_a_sentence(gallery, query, message):
    with pytest.raises(CSKTError, match=message):
        gallery.search(query)
    assert len(gallery.search("coat", 500)) == 12


@pytest.mark.parametrize(
    "where, message",
    [
        ("camera = 'x", "filter.*is not understood"),
        ("camera == 3", "filter.*is not understood"),
        ("1", "filter"),
        ("__import__('os')", "filter"),
    ],
)
def test_a_bad_filter_gets_a_sentence(gallery, where, message):
    with pytest.raises(CSKTError, match=message):
        gallery.search("coat", where=where)
    assert len(gallery.search("coat", 500)) == 12


@pytest.mark.parametrize("k", [0, -1, "3", None, 2.5, True])
def test_a_number_of_hits_that_is_none_gets_a_sentence(gallery, k):
    with pytest.raises(CSKTError, match="k must be at least 1"):
        gallery.search("coat", k=k)


def test_a_filter_that_passes_few_of_many_is_exact(tmp_path, model):
    vectors = np.random.default_rng(0).standard_normal((5000, model.dimension)).astype("f4")
    facts = [{"identity": index % 1000} for index in range(5000)]
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add_vectors(vectors, facts)
        cosines = vectors[7::1000] @ vectors[0] / np.linalg.norm(vectors[7::1000], axis=1)
        hits = gallery.search(vectors[0], 3, "identity == 7")
        order = [f"vector {7 + 1000 * place}" for place in np.argsort(-cosines)[:3]]
        assert names(hits) == order


def test_remarks_name_what_the_model_does_not_read(tmp_path):
    with Gallery(tmp_path / "g.db", "cskt-mini") as gallery:
        assert gallery.remarks("a man in a red coat") == []
        unknown, cut = gallery.remarks("a zebra with a coat " + "red " * 80)
        assert "zebra" in unknown
        assert "Only the first 75 tokens" in cut


def test_a_thumbnail_that_is_a_link_is_not_shown(gallery, tmp_path):
    (hit,) = gallery.search("coat", 1)
    secret = tmp_path / "secret.jpg"
    hit.thumbnail.rename(secret)
    hit.thumbnail.symlink_to(secret)
    assert gallery.search("coat", 1)[0].thumbnail is None
    hit.thumbnail.unlink()
    folder = hit.thumbnail.parent
    folder.rename(tmp_path / "moved")
    secret.rename(tmp_path / "moved" / hit.thumbnail.name)
    folder.symlink_to(tmp_path / "moved")
    assert gallery.search("coat", 1)[0].thumbnail is None


# What stays


def test_a_gallery_is_there_again_after_closing(gallery, model):
    before = gallery.search("a red coat", 5)
    gallery.close()
    with Gallery(gallery.uri, model) as again:
        assert again.search("a red coat", 5) == before
        assert len(again) == 12
        assert again.values("camera") == ["c0", "c1", "c2"]
        assert again.add(pictures(12)) == Added(added=0, known=12)


def test_deleting_takes_the_thumbnails_along(gallery):
    gone = gallery.search("coat", 50, "camera == 'c1'")
    kept = gallery.search("coat", 50, "camera != 'c1'")
    assert gallery.delete("camera == 'c1'") == len(gone) == 4
    assert len(gallery) == 8
    assert not any(hit.thumbnail.exists() for hit in gone)
    assert all(hit.thumbnail.is_file() for hit in kept)
    with pytest.raises(CSKTError, match="no longer in the gallery"):
        gallery.search(gone[0])


def test_what_is_deleted_is_overwritten(gallery):
    gallery.delete("camera == 'c1'")
    stored = np.fromfile(Path(gallery.uri, "gallery.vectors"), "<f4").reshape(12, -1)
    assert np.flatnonzero(~stored.any(1)).tolist() == [1, 4, 7, 10]
    assert b"2024-01-02" not in Path(gallery.uri, "gallery.sqlite").read_bytes()


def test_deleting_needs_a_filter(gallery):
    with pytest.raises(CSKTError, match="needs a filter"):
        gallery.delete("  ")
    assert len(gallery) == 12


def test_deleted_rows_are_found_no_more_after_opening_again(gallery, model):
    gallery.close()
    with Gallery(gallery.uri, model) as again:
        assert again.delete("identity == 3") == 2
    with Gallery(gallery.uri, model) as again:
        assert len(again) == 10
        assert not again.search("coat", 50, "identity == 3")
        assert 3 not in {hit.identity for hit in again.search("coat", 50)}


def test_galleries_in_one_place_are_apart(tmp_path, model):
    with (
        Gallery(tmp_path / "g.db", model, name="one") as one,
        Gallery(tmp_path / "g.db", model, name="two") as two,
    ):
        one.add(pictures(3))
        two.add(pictures(5))
        assert (len(one), len(two)) == (3, 5)
        assert one.delete("id != ''") == 3
        assert all(hit.thumbnail.is_file() for hit in two.search("coat", 9))


def test_a_dropped_gallery_is_gone_and_its_neighbour_stays(tmp_path, model):
    place = tmp_path / "g.db"
    with Gallery(place, model, name="one") as one, Gallery(place, model, name="two") as two:
        two.add(pictures(5))
        one.drop()
        with pytest.raises(CSKTError, match="holds no gallery 'one'"):
            Gallery(place, model, name="one", create=False)
        assert len(two) == 5


# Whose gallery it is


def test_another_model_is_refused(gallery, model):
    config = CSKTConfig(prompt_length=1)
    other = cskt.load_model(BACKBONE, config=config, pretrained="random").eval()
    with pytest.raises(CSKTError, match="written by another model.*cannot be compared"):
        Gallery(gallery.uri, other)
    assert Gallery(gallery.uri, model).search("coat", 1) == gallery.search("coat", 1)


def test_a_changed_model_is_refused(tmp_path, monkeypatch):
    with Gallery(tmp_path / "g.db", "cskt-mini") as gallery:
        gallery.add(np.zeros((1, 8, 8, 3), np.uint8))
        assert gallery.record["source"] == "cskt-mini"
    monkeypatch.setattr(cskt.CSKT, "fingerprint", lambda self: "another")
    with (
        Gallery(tmp_path / "g.db") as gallery,
        pytest.raises(CSKTError, match="no longer the one that wrote"),
    ):
        gallery.search("coat")


def test_a_new_gallery_needs_no_more_than_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no default run has been trained
    with Gallery("g.db") as gallery:
        gallery.add(pictures(3), facts_of(3))
        assert gallery.record["source"] == "cskt-mini"
        assert len(gallery.search("a woman in a red coat", k=10)) == 3
    with Gallery("g.db") as gallery:
        assert gallery.search("a woman in a red coat", where="camera == 'c1'")[0].identity == 0


@pytest.mark.numerics
def test_fingerprints_tell_weights_apart(model):
    before = model.fingerprint()
    parameter = next(p for p in model.parameters() if p.requires_grad)
    parameter.data[0] += 1
    changed = model.fingerprint()
    parameter.data[0] -= 1
    assert changed != before
    assert len(before) == 16
    shorter = cskt.load_model("cskt-mini", config=CSKTConfig.mini(prompt_length=2))
    assert shorter.fingerprint() != before
