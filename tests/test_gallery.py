"""The gallery: what is found, what is refused, and that nothing is lost or there twice, whatever is
interrupted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cskt
from cskt import CSKTConfig, CSKTError, Gallery, demo
from cskt.data.benchmarks import Split
from cskt.data.images import MAX_PIXELS, decode_image
from cskt.data.pipeline import normalize
from cskt.gallery import Hit
from cskt.pictures import read_metadata

from .tiny_runs import BACKBONE, IMAGE_SIZE, register_backbone

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    register_backbone(tmp_path_factory.mktemp("backbone"))
    torch.manual_seed(0)
    return cskt.load_model(BACKBONE, config=CSKTConfig(prompt_length=1)).eval()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *IMAGE_SIZE, 3), dtype=np.uint8)


def rows(count: int) -> list[dict]:
    return [
        {"identity": i // 2, "camera": f"c{i % 3}", "time": f"2024-01-{i + 1:02d}", "floor": i % 2}
        for i in range(count)
    ]


@pytest.fixture
def gallery(tmp_path, model):
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(pictures(12), rows(12))
        yield gallery


def folder_of(path: Path, count: int, size: tuple[int, int] = IMAGE_SIZE) -> Path:
    path.mkdir(parents=True)
    for i, pixels in enumerate(
        np.random.default_rng(1).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).save(path / f"{i:04d}.png")
    return path


def features(model, images: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_image(
            normalize(torch.from_numpy(images).permute(0, 3, 1, 2)), normalize=True
        )


@pytest.mark.numerics
def test_search_ranks_by_cosine_and_returns_what_is_known(gallery, model):
    with torch.no_grad():
        text = model.encode_text(model.tokenize(["a man in a red coat"]), normalize=True)
    cosines = (features(model, pictures(12)) @ text.T)[:, 0]
    hits = gallery.search("a man in a  red coat\n", 12)
    order = cosines.argsort(descending=True).tolist()
    assert [hit.source for hit in hits] == [f"image {i}" for i in order]
    np.testing.assert_allclose([hit.score for hit in hits], cosines[order], atol=1e-5)
    first, i = hits[0], order[0]
    assert (first.identity, first.camera, first.time) == (
        i // 2,
        f"c{i % 3}",
        f"2024-01-{i + 1:02d}",
    )
    assert (
        dict(first.extra) == {"floor": i % 2}
        and f"identity {i // 2}, camera c{i % 3}" in first.label()
    )
    assert first.image().size == IMAGE_SIZE[::-1] and first.thumbnail.is_file()


@pytest.mark.parametrize(
    "where, keep",
    [
        ("camera == 'c1'", lambda row: row["camera"] == "c1"),
        ("identity in [1, 2]", lambda row: row["identity"] in (1, 2)),
        (
            "time >= '2024-01-05' and floor == 0",
            lambda row: row["time"] >= "2024-01-05" and not row["floor"],
        ),
        ("nothing == 1", lambda row: False),
    ],
)
def test_a_filter_leaves_what_fits_it(gallery, where, keep):
    hits = gallery.search("a red coat", 50, where)
    assert {hit.source for hit in hits} == {
        f"image {i}" for i, row in enumerate(rows(12)) if keep(row)
    }


@pytest.mark.numerics
def test_pictures_vectors_and_hits_find_themselves(gallery, model, tmp_path):
    images = pictures(12)
    Image.fromarray(images[4]).save(tmp_path / "4.png")
    queries = [
        images[4],
        Image.fromarray(images[4]),
        tmp_path / "4.png",
        features(model, images[4:5])[0],
        7 * features(model, images[4:5])[0].numpy(),
        gallery.search(images[4], 1)[0],
    ]
    for query in queries:
        (hit,) = gallery.search(query, 1)
        assert hit.source == "image 4" and hit.score == pytest.approx(1, abs=1e-4)


def test_a_gallery_is_there_again_after_closing(gallery, model):
    before = gallery.search("a red coat", 5)
    gallery.close()
    with Gallery(gallery.uri, model) as again:
        assert again.search("a red coat", 5) == before and len(again) == 12
        assert again.values("camera") == ["c0", "c1", "c2"]
        assert again.add(pictures(12)) == cskt.gallery.Added(added=0, known=12)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=7), min_size=1, max_size=3))
def test_the_same_content_is_there_once(gallery, calls):
    gallery.delete("id != ''")
    distinct = pictures(6, seed=3)
    for call in calls:
        gallery.add(distinct[call], batch_size=2)
    assert len(gallery) == len(set(sum(calls, [])))


def test_deleting_takes_the_thumbnails_along(gallery):
    gone, kept = (gallery.search("coat", 50, f"camera {sign} 'c1'") for sign in ("==", "!="))
    assert gallery.delete("camera == 'c1'") == len(gone) == 4 and len(gallery) == 8
    assert not any(hit.thumbnail.exists() for hit in gone) and all(
        hit.thumbnail.is_file() for hit in kept
    )
    with pytest.raises(CSKTError, match="no longer in the gallery"):
        gallery.search(gone[0])
    with pytest.raises(CSKTError, match="needs a filter"):
        gallery.delete("  ")
    assert len(gallery) == 8


def test_a_folder_with_everything_in_it(tmp_path, model):
    folder = folder_of(tmp_path / "in", 3)
    (folder / "below").mkdir()
    Image.fromarray(pictures(1, 8)[0]).save(folder / "below" / "<img src=x onerror=alert(1)>.png")
    shutil.copy(folder / "0001.png", folder / "copy.png")
    (folder / "note.txt").write_text("no image")
    (folder / "empty.jpg").touch()
    (folder / ".hidden.txt").write_text("not even listed")
    (folder / "cut.png").write_bytes((folder / "0002.png").read_bytes()[:900])
    Image.new("1", (MAX_PIXELS // 5000, 5001)).save(folder / "huge.png")
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2024:05:06 07:08:09"
    on_its_side = Image.fromarray(pictures(1, 9)[0].transpose(1, 0, 2)[::-1].copy())
    on_its_side.save(folder / "turned.jpg", exif=exif, quality=95)
    done: list[tuple[int, int]] = []
    with Gallery(tmp_path / "g.db", model) as gallery:
        added = gallery.add(
            folder,
            {"0000.png": {"identity": 7, "camera": "c9"}},
            batch_size=4,
            on_batch=lambda *numbers: done.append(numbers),
        )
        reasons = {Path(name).name: why for name, why in added.skipped.items()}
        assert (added.added, added.known, len(gallery)) == (5, 1, 5) and done == [
            (4, 10),
            (8, 10),
            (10, 10),
        ]
        assert reasons.keys() == {"note.txt", "empty.jpg", "cut.png", "huge.png"}
        assert reasons["note.txt"] == reasons["empty.jpg"] == "not an image"
        assert reasons["huge.png"].startswith("too large") and reasons["cut.png"].startswith(
            "cannot be read"
        )
        (known,) = gallery.search("coat", 9, "camera == 'c9'")
        assert known.identity == 7 and known.source == str(folder / "0000.png")
        (turned,) = gallery.search(Image.open(folder / "turned.jpg").rotate(270, expand=True), 1)
        assert Path(turned.source).name == "turned.jpg" and turned.score > 0.999
        assert turned.time == "2024-05-06T07:08:09" and turned.image().size == IMAGE_SIZE[::-1]
        page = demo.contact_sheet("<b>who</b>", gallery.search("coat", 9), ["a & b"])
        assert (
            "<img src=x" not in page
            and "<b>" not in page
            and "&lt;b&gt;who" in page
            and "a &amp; b" in page
        )
        assert page.count('<img src="data:image/jpeg') == page.count(' alt="') == 5


@pytest.mark.numerics
def test_odd_pictures_are_seen_as_they_are(tmp_path, model):
    """16 bits, a palette, a page with transparency, CMYK: none is clipped, confused or refused;
    floats are."""
    folder = tmp_path / "in"
    folder.mkdir()
    ramp = np.linspace(0, 65535, 32 * 16).reshape(IMAGE_SIZE)
    Image.fromarray(ramp.astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(ramp.astype(np.float32)).save(folder / "float.tiff")
    Image.fromarray(pictures(1)[0]).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(pictures(1, 1)[0]).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(pictures(1, 2)[0]).save(folder / "drawing.eps")
    first = Image.new("P", IMAGE_SIZE[::-1], 1)
    second = first.copy()
    first.putpalette([0, 0, 0, 255, 0, 0])
    second.putpalette([0, 0, 0, 0, 0, 255])
    with Gallery(tmp_path / "g.db", model) as gallery:
        added = gallery.add(folder)
        reasons = {Path(name).name: why for name, why in added.skipped.items()}
        assert (
            reasons["drawing.eps"] == "not an image" and "pixels are of F" in reasons["float.tiff"]
        )
        assert added.added == 3 and len(reasons) == 2
        grey = np.repeat((ramp / 257).round().astype(np.uint8)[..., None], 3, axis=2)
        (deep,) = gallery.search(features(model, grey[None])[0], 1)
        assert deep.source.endswith("deep.png") and deep.score > 0.999
        assert gallery.add([first, second]).added == 2


def test_what_is_no_image_of_a_folder(tmp_path, model):
    """Other galleries, links to folders, copies of a broken file, pipes, folders that cannot be
    entered."""
    folder = folder_of(tmp_path / "in", 2)
    with Gallery(folder / "other.db", model) as other, Gallery(folder / "g.db", model) as gallery:
        other.add(pictures(3, 4))
        (folder / "link").symlink_to(tmp_path)
        os.mkfifo(folder / "pipe")
        for name in ("cut.png", "cut too.png"):
            (folder / name).write_bytes((folder / "0000.png").read_bytes()[:900])
        added = gallery.add(folder)
        reasons = {Path(name).name: why for name, why in added.skipped.items()}
        assert (added.added, added.known) == (2, 0) and reasons.keys() == {
            "link",
            "pipe",
            "cut.png",
            "cut too.png",
        }
        assert reasons["cut.png"] == reasons["cut too.png"] and "not followed" in reasons["link"]
        assert gallery.add(folder) == cskt.gallery.Added(0, 2, added.skipped)


def test_a_replaced_file_is_not_shown_for_the_one_indexed(tmp_path, model):
    folder = folder_of(tmp_path / "in", 1)
    Image.new("RGB", IMAGE_SIZE[::-1], "red").save(folder / "0000.png")
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(folder)
        (hit,) = gallery.search("coat", 1)
        Image.new("RGB", IMAGE_SIZE[::-1], "blue").save(folder / "0000.png")
        red, _, blue = np.asarray(hit.image().convert("RGB")).reshape(-1, 3).mean(0)
        assert red > 240 and blue < 10  # the thumbnail's


def test_deleted_rows_are_found_no_more_after_opening_again(gallery, model):
    gallery.close()
    with Gallery(gallery.uri, model) as again:
        assert again.delete("identity == 3") == 2
    with Gallery(gallery.uri, model) as again:
        assert len(again) == 10 and not again.search("coat", 50, "identity == 3")
        assert 3 not in {hit.identity for hit in again.search("coat", 50)}


@pytest.mark.numerics
def test_a_split_gives_what_evaluation_gives(tmp_path, model):
    folder = folder_of(tmp_path / "in", 4, (40, 20))
    paths = tuple(sorted(folder.iterdir()))
    split = Split(
        "test",
        paths,
        np.array([3, 3, 5, 5]),
        ("a", "b"),
        np.array([0, 2]),
        ("c1", "c2", "c1", "c2"),
    )
    pixels = np.stack([decode_image(path, IMAGE_SIZE) for path in paths]).transpose(0, 2, 3, 1)
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(split)
        hits = gallery.search(features(model, pixels)[2], 4)
        assert hits[0].source == str(paths[2]) and hits[0].score == pytest.approx(1, abs=1e-5)
        assert {(Path(hit.source).name, hit.identity, hit.camera) for hit in hits} == {
            ("0000.png", 3, "c1"),
            ("0001.png", 3, "c2"),
            ("0002.png", 5, "c1"),
            ("0003.png", 5, "c2"),
        }


@pytest.mark.parametrize(
    "query", ["😀🧥", "穿红衣服的女人", "<script>alert(1)</script>", "'; drop table", "%s {0}"]
)
def test_any_text_is_a_description(gallery, query):
    assert len(gallery.search(query, 3)) == 3


@pytest.mark.parametrize(
    "query, options, message",
    [
        ("", {}, "type a description"),
        (" \n", {}, "type a description"),
        ("x" * 10_000, {}, "10000 characters"),
        ("coat", {"k": 0}, "k must be at least 1"),
        ("coat", {"where": "camera = 'x"}, "filter.*is not understood"),
        ("coat", {"where": "camera == 3"}, "filter.*is not understood"),
        ("coat", {"where": "1"}, "filter"),
        ("coat", {"where": "__import__('os')"}, "filter"),
        (np.ones(3), {}, r"16 finite numbers.*\(3,\)"),
        (np.full(16, np.nan), {}, "finite"),
        (torch.zeros(16), {}, "not all 0"),
        (Path("nowhere.png"), {}, "nowhere.png"),
        (np.zeros((4, 4)), {}, "uint8 array"),
        (None, {}, "NoneType"),
    ],
)
def test_bad_queries_get_a_sentence_and_change_nothing(gallery, query, options, message):
    with pytest.raises(CSKTError, match=message):
        gallery.search(query, **options)
    assert len(gallery.search("coat", 500)) == 12


def test_remarks_name_what_the_model_does_not_read(tmp_path):
    with Gallery(tmp_path / "g.db", "cskt-mini") as gallery:
        assert gallery.remarks("a man in a red coat") == []
        unknown, cut = gallery.remarks("a zebra with a coat " + "red " * 80)
        assert "zebra" in unknown and "Only the first 75 tokens" in cut


@pytest.mark.parametrize(
    "images, metadata, message",
    [
        (pictures(1)[0], None, r"\(N, H, W, 3\)"),
        (pictures(2), [{}], "got 1 for 2"),
        ("nowhere", None, "not a folder"),
        ([], None, "nothing to add"),
        ([3], None, "got int"),
        (pictures(1, 8), [{"identity": "x"}], "identity of image 0"),
        (pictures(1, 8), [{"identity": 7.5}], "identity of image 0"),
        (pictures(1, 8), [{"identity": 10**30}], "64 bits"),
        (pictures(1, 8), [{"camera": "c" * 300}], "camera of image 0 must have at most 256"),
        (pictures(1, 8), [{"time": "t" * 65}], "time of image 0"),
        (pictures(1, 8), [{"$meta": 1}], r"\$meta"),
    ],
)
def test_bad_images_get_a_sentence(gallery, images, metadata, message):
    with pytest.raises(CSKTError, match=message):
        done = gallery.add(images, metadata)
        raise CSKTError(str(done.skipped))
    assert len(gallery) == 12


def test_metadata_from_a_table(tmp_path, gallery):
    table = tmp_path / "facts.csv"
    table.write_text("file,identity,camera,colour\n0000.png,7,c1,red\n0001.png,,c2,\n")
    facts = read_metadata(table)
    assert facts == {
        "0000.png": {"identity": "7", "camera": "c1", "colour": "red"},
        "0001.png": {"camera": "c2"},
    }
    folder = folder_of(tmp_path / "in", 2)
    gallery.add(folder, facts)
    assert gallery.search("coat", 9, "colour == 'red'")[0].identity == 7
    with pytest.raises(
        CSKTError, match="identity of .*0001.png must be an integer of 64 bits, got 'y'"
    ):
        gallery.add(folder, {"0001.png": {"identity": "y"}})
    with pytest.raises(CSKTError, match="1 files that are not in .* such as 9.png"):
        gallery.add(folder, {"9.png": {}})
    table.write_bytes("\ufefffile, camera\n0000.png, c1\n".encode())
    assert read_metadata(table) == {"0000.png": {"camera": "c1"}}
    with pytest.raises(CSKTError, match="http"):
        read_metadata("http://127.0.0.1:9/facts.csv")
    for content, message in (
        ("a,b\n1,2\n", "column 'file'"),
        ("", "csv"),
        ("file\na\na\n", "names a twice"),
        ("file,camera\na.png,c1,hall\n", "cannot be read as a csv file"),
    ):
        table.write_text(content)
        with pytest.raises(CSKTError, match=message):
            read_metadata(table)


def test_another_model_is_refused(gallery, model):
    other = cskt.load_model(
        BACKBONE, config=CSKTConfig(prompt_length=1), pretrained="random"
    ).eval()
    with pytest.raises(CSKTError, match="written by another model.*cannot be compared"):
        Gallery(gallery.uri, other)
    assert Gallery(gallery.uri, model).search("coat", 1) == gallery.search("coat", 1)


def test_a_changed_model_is_refused(tmp_path, model):
    with Gallery(tmp_path / "g.db", "cskt-mini") as gallery:
        gallery.add(np.zeros((1, 8, 8, 3), np.uint8))
        assert gallery.record["source"] == "cskt-mini"
        gallery.record["model"] = "0" * 16
        gallery._model = gallery._given = None
        with pytest.raises(CSKTError, match="no longer the one that wrote"):
            gallery.search("coat")


def test_a_new_gallery_needs_no_more_than_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no default run has been trained
    with Gallery("g.db") as gallery:
        gallery.add(pictures(3), rows(3))
        assert (
            gallery.record["source"] == "cskt-mini"
            and len(gallery.search("a woman in a red coat", k=10)) == 3
        )
    with Gallery("g.db") as gallery:
        assert gallery.search("a woman in a red coat", where="camera == 'c1'")[0].identity == 0


@pytest.mark.numerics
def test_fingerprints_tell_weights_apart(model):
    before = model.fingerprint()
    parameter = next(p for p in model.parameters() if p.requires_grad)
    parameter.data[0] += 1
    changed = model.fingerprint()
    parameter.data[0] -= 1
    assert changed != before and len(before) == 16
    assert (
        cskt.load_model("cskt-mini", config=CSKTConfig.mini(prompt_length=2)).fingerprint()
        != before
    )


# Precision


@pytest.fixture(params=[True, False], ids=["native bf16", "no bf16"])
def chip(request, monkeypatch):
    """A processor that computes bf16 natively, or not."""
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param}, raising=False
    )
    return request.param


def in_precision(model, dtype, text: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features (1, D) of a text and (N, D) of images by a model whose blocks compute in
    ``dtype``."""
    with model.fused(dtype):
        with torch.no_grad():
            query = model.encode_text(model.tokenize([text]), normalize=True)
        return query.float().numpy(), features(model, images).float().numpy()


def test_a_gallery_on_a_cpu_is_fp32_on_every_chip(chip, tmp_path, model):
    query, images = in_precision(model, torch.float32, "a red coat", pictures(6))
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(pictures(6))
        assert gallery.record["precision"] == "fp32"
        np.testing.assert_allclose(gallery.encode("a red coat"), query[0], atol=1e-6)
        np.testing.assert_allclose(gallery.encode(pictures(6)[2]), images[2], atol=1e-6)
        for hit in gallery.search("a red coat", 6):
            np.testing.assert_allclose(
                gallery.encode(hit), images[int(hit.source.split()[1])], atol=1e-6
            )


def test_images_and_queries_have_the_recorded_precision_wherever_it_is_opened(
    tmp_path, model, monkeypatch
):
    exact = in_precision(model, torch.float32, "a red coat", pictures(6))
    query, images = in_precision(model, torch.bfloat16, "a red coat", pictures(6))
    assert np.abs(query - exact[0]).max() > 1e-4 and np.abs(images - exact[1]).max() > 1e-4
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    with Gallery(tmp_path / "g.db", model, precision="bf16") as gallery:
        gallery.add(pictures(3))
        assert gallery.record["precision"] == "bf16"
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", dict, raising=False
    )  # another machine, which emulates it
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(pictures(6))
        assert gallery.record["precision"] == "bf16"
        np.testing.assert_allclose(gallery.encode("a red coat"), query[0], atol=1e-6)
        np.testing.assert_allclose(gallery.encode(pictures(6)[4]), images[4], atol=1e-6)
        for hit in gallery.search("a red coat", 6):
            np.testing.assert_allclose(
                gallery.encode(hit), images[int(hit.source.split()[1])], atol=1e-6
            )
        assert model.fused_dtype is None


def test_a_model_fused_in_another_precision_does_not_change_the_gallery(tmp_path, model):
    query, images = in_precision(model, torch.float32, "a red coat", pictures(2))
    with Gallery(tmp_path / "g.db", model.fuse(torch.bfloat16)) as gallery:
        np.testing.assert_allclose(gallery.encode("a red coat"), query[0], atol=1e-6)
        model.fuse(torch.bfloat16)
        np.testing.assert_allclose(gallery.encode(pictures(2)[1]), images[1], atol=1e-6)
    model.unfuse()


def test_a_gallery_without_a_precision_or_in_an_unknown_one_is_refused(
    tmp_path, model, monkeypatch
):
    with pytest.raises(CSKTError, match="precision must be 'auto', 'fp32' or 'bf16', got 'fp16'"):
        Gallery(tmp_path / "none.db", model, precision="fp16")
    create = Gallery._create

    def without_precision(self, shards):
        self.record = {name: value for name, value in self.record.items() if name != "precision"}
        create(self, shards)

    monkeypatch.setattr(Gallery, "_create", without_precision)
    Gallery(tmp_path / "old.db", model).close()
    with pytest.raises(
        CSKTError, match="does not say in which precision .*; index the images into a new gallery"
    ):
        Gallery(tmp_path / "old.db", model)


def test_places_without_a_gallery(tmp_path, model):
    file, foreign = tmp_path / "old.db", tmp_path / "photos"
    file.write_bytes(b"SQLite format 3\0")
    folder_of(foreign, 1)
    with pytest.raises(CSKTError, match="is a file; a gallery of this version is a folder"):
        Gallery(file, model)
    with pytest.raises(CSKTError, match="is a folder but no gallery"):
        Gallery(foreign, model)
    with pytest.raises(CSKTError, match="there is no gallery at .* python -m cskt index"):
        Gallery(tmp_path / "none.db", create=False)
    with pytest.raises(CSKTError, match="index must be one of FLAT"):
        Gallery(tmp_path / "none.db", model, index="B-TREE")
    with pytest.raises(CSKTError, match="is the Milvus server running"):
        Gallery("http://127.0.0.1:9", model)
    for address in ("http://", Path("http://127.0.0.1:9")):
        with pytest.raises(CSKTError, match="write it as http://host:19530"):
            Gallery(address, model)
    with pytest.raises(CSKTError, match="nowhere holds no run"):
        Gallery(tmp_path / "none.db", "nowhere")
    assert not (tmp_path / "none.db").exists() and sorted(p.name for p in foreign.iterdir()) == [
        "0000.png"
    ]


def test_another_version_is_refused_and_left_alone(gallery, model, monkeypatch):
    monkeypatch.setattr(cskt.gallery, "FORMAT", "2")
    with pytest.raises(CSKTError, match="has format 1, this version of cskt reads 2"):
        Gallery(gallery.uri, model)
    monkeypatch.undo()
    assert len(Gallery(gallery.uri, model)) == 12


def test_a_damaged_gallery_is_named(gallery, model):
    gallery.close()
    for manifest in Path(gallery.uri).rglob("manifest.json*"):
        manifest.write_text("{")
    with pytest.raises(CSKTError, match="g.db cannot be opened"):
        Gallery(gallery.uri, model)


def test_a_full_disk_is_named_and_the_call_can_be_repeated(gallery, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cskt.gallery.os, "replace", full)
    with pytest.raises(CSKTError, match="No space left.*repeat the call"):
        gallery.add(pictures(3, seed=5))
    monkeypatch.undo()
    assert gallery.add(pictures(3, seed=5)).added == 3


def test_a_hit_without_its_files(tmp_path, gallery):
    (hit,) = gallery.search(pictures(12)[0], 1)
    hit.thumbnail.unlink()
    (gone,) = gallery.search(pictures(12)[0], 1)
    assert gone.thumbnail is None and "data:image/jpeg" in demo.hit_picture(gone)
    with pytest.raises(CSKTError, match="gone"):
        Hit("0", 1.0, str(tmp_path / "none.png")).image()


@pytest.mark.numerics
@pytest.mark.parametrize("index", ["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"])
def test_every_embedded_index_finds_the_same(tmp_path, model, index):
    images = pictures(40)
    with Gallery(tmp_path / "g.db", model, index=index) as gallery:
        gallery.add(images)
        gallery.close()
    with Gallery(tmp_path / "g.db", model) as gallery:
        assert gallery.record["index"] == index
        assert [hit.source for hit in gallery.search(images[7], 3)][0] == "image 7"


def test_a_server_is_used_by_its_address(tmp_path, model):
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "server"))
    try:
        uri = f"http://127.0.0.1:{port}"
        for name, count in (("one", 5), ("two", 7)):
            with Gallery(uri, model, name=name, shards=1, thumbnails=tmp_path / name) as gallery:
                assert gallery.add(pictures(count)).added == len(gallery) == count
        with pytest.raises(CSKTError, match="holds no gallery 'three'"):
            Gallery(uri, name="three", create=False)
        with Gallery(uri, model, name="two", thumbnails=tmp_path / "two") as gallery:
            assert gallery.search(pictures(7)[6], 1)[0].thumbnail.parent.parent == tmp_path / "two"
    finally:
        server.stop(grace=0)
        database.close()


@pytest.mark.numerics
def test_vectors_computed_elsewhere(tmp_path, model):
    vectors = features(model, pictures(6))
    facts = [{"source": f"{i}.png", "camera": f"c{i % 2}"} for i in range(6)]
    with Gallery(tmp_path / "g.db", model) as gallery:
        assert gallery.add_vectors(5 * vectors, facts) == len(gallery) == 6
        assert gallery.add_vectors(5 * vectors, facts) == 0
        (hit,) = gallery.search(pictures(6)[3], 1, "camera == 'c1'")
        assert (hit.source, hit.thumbnail) == ("3.png", None) and hit.score == pytest.approx(
            1, abs=1e-4
        )
        for bad, message in (
            (vectors[:2], r"\(6, 16\).*\(2, 16\)"),
            (vectors[:, :3], "16"),
            (vectors * np.nan, "finite"),
            (vectors * 0, "all 0"),
        ):
            with pytest.raises(CSKTError, match=message):
                gallery.add_vectors(bad, facts)
        assert len(gallery) == 6


def test_a_server_without_empty_columns_filters_alike(tmp_path, model, monkeypatch):
    """What a Milvus before 2.5 is given: facts as dynamic fields (milvus-lite, under another
    version's name)."""
    monkeypatch.setattr("pymilvus.MilvusClient.get_server_version", lambda self: "v2.3.5")
    with Gallery(tmp_path / "g.db", model) as gallery:
        columns = {
            each["name"] for each in gallery._client.describe_collection("gallery")["fields"]
        }
        assert columns == {"id", "vector", "source", "thumbnail"}
        gallery.add(pictures(12), rows(12))
        hits = gallery.search("a red coat", 50, "camera == 'c1' and identity < 4 and floor == 1")
        assert {(hit.source, hit.identity, hit.camera) for hit in hits} == {
            ("image 1", 0, "c1"),
            ("image 7", 3, "c1"),
        }
        assert (
            gallery.values("camera") == ["c0", "c1", "c2"] and gallery.delete("identity == 0") == 2
        )


def test_galleries_in_one_place_are_apart(tmp_path, model):
    with (
        Gallery(tmp_path / "g.db", model, name="one") as one,
        Gallery(tmp_path / "g.db", model, name="two") as two,
    ):
        one.add(pictures(3))
        two.add(pictures(5))
        assert (len(one), len(two)) == (3, 5) and one.delete("id != ''") == 3
        assert all(hit.thumbnail.is_file() for hit in two.search("coat", 9))


def python(tmp_path: Path, code: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


READER = """
import sys, time
from cskt import Gallery
gallery, seconds = Gallery(sys.argv[1]), float(sys.argv[2])
print("open", flush=True)
end, sizes = time.monotonic() + seconds, []
while time.monotonic() < end:
    hits = gallery.search("a man in a red coat", 5, "camera == 'c1'")
    assert len(hits) == 5 and all(hit.camera == "c1" for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    sizes.append(len(gallery))
    if sizes[-1] >= int(sys.argv[3]):
        break
assert sizes == sorted(sizes)
print(len(sizes), sizes[-1], flush=True)
"""
WRITER = """
import sys, numpy as np
from cskt import Gallery
images = np.random.default_rng(1).integers(0, 256, (300, 16, 8, 3), dtype=np.uint8)
with Gallery(sys.argv[1]) as gallery:
    print("open", flush=True)
    print(gallery.add(images, [{"camera": "c1"}] * 300, batch_size=4).added, flush=True)
"""


def test_two_readers_and_a_writer_at_once_and_the_one_that_serves_them_is_killed(tmp_path):
    place = str(tmp_path / "g.db")
    with Gallery(place, "cskt-mini") as gallery:
        gallery.add(
            np.random.default_rng(2).integers(0, 256, (20, 16, 8, 3), dtype=np.uint8),
            [{"camera": "c1"}] * 20,
        )
    serving = python(tmp_path, READER, place, "120", "100000")  # the first to open it
    assert serving.stdout.readline() == "open\n", serving.communicate()[1]
    reader, writer = python(tmp_path, READER, place, "120", "320"), python(tmp_path, WRITER, place)
    for process in (reader, writer):
        assert process.stdout.readline() == "open\n", process.communicate()[1]
    time.sleep(0.5)
    serving.send_signal(signal.SIGKILL)
    wrote, read = (process.communicate(timeout=120) for process in (writer, reader))
    assert wrote[0] == "300\n", wrote[1]
    assert read[0].split()[1] == "320", read[1]
    serving.communicate()
    with Gallery(place) as gallery:
        assert len(gallery) == 320 and len({hit.id for hit in gallery.search("coat", 400)}) == 320


@pytest.fixture
def command_line(cskt, tmp_path, monkeypatch):
    """``command_line("index", ...)`` in ``tmp_path`` -> returncode, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: SimpleNamespace(
        **dict(zip(("returncode", "stdout", "stderr"), cskt(*arguments), strict=True))
    )


def test_index_is_killed_and_goes_on(tmp_path, command_line):
    folder, place = folder_of(tmp_path / "in", 1500, (24, 12)), tmp_path / "g.db"
    (folder / "note.txt").write_text("no image")
    command = [sys.executable, "-m", "cskt", "index", str(folder), "--gallery", str(place)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    while process.poll() is None and len(list(place.rglob("*.jpg"))) < 200:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was still at work"
    done = command_line("index", folder, "--gallery", place)
    numbers = re.search(
        r"(\d+) images added, (\d+) already there, 1 skipped; (\d+) in all", done.stdout
    )
    added, known, total = map(int, numbers.groups())
    assert total == added + known == 1500 and known >= 128 and added > 0, done
    with Gallery(place) as gallery:
        assert len({hit.source for hit in gallery.search("coat", 2000)}) == 1500
        assert all(hit.thumbnail.is_file() for hit in gallery.search("coat", 2000))


def test_the_command_line_indexes_and_searches(tmp_path, command_line):
    folder, place, page = folder_of(tmp_path / "in", 5), tmp_path / "g.db", tmp_path / "out.html"
    (folder / "facts.csv").write_text("file,identity,camera\n0003.png,12,c4\n")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = command_line("index", folder, "--gallery", place, "--metadata", folder / "facts.csv")
    assert (
        "5 images added, 0 already there, 2 skipped; 5 in all" in done.stdout
        and "broken.jpg" in done.stdout
    )
    assert "model: cskt-mini" in done.stderr
    done = command_line(
        "search",
        "a <b>man</b> in a grey hoodie with a zebra",
        "--gallery",
        place,
        "-k",
        "9",
        "--html",
        page,
    )
    lines = done.stdout.splitlines()
    assert (
        lines[0].split() == ["rank", "score", "identity", "camera", "time", "file"]
        and len(lines) == 7
    )
    scores = [float(line.split()[1]) for line in lines[1:6]]
    assert scores == sorted(scores, reverse=True) and str(folder / "0003.png") in done.stdout
    assert "zebra" in done.stderr and "holds only 5 images" in done.stderr
    assert page.read_text().count("<figure>") == 5 and "<b>" not in page.read_text()
    done = command_line("search", "a man", "--gallery", place, "--where", "camera == 'c4'")
    assert (
        re.search(r"1 +\d\.\d+ +12 +c4 +- ", done.stdout)
        and "Only 1 of the 5 images" in done.stderr
    )
    done = command_line("search", "--image", folder / "0002.png", "--gallery", place, "-k", "1")
    assert "1.000" in done.stdout and "0002.png" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["search", "a man", "--gallery", "none.db"], "there is no gallery at none.db"),
        (["search", "--gallery", "none.db"], "give a description or --image"),
        (["index", "nowhere", "--gallery", "new.db"], "nowhere is not a folder"),
        (["index", ".", "--gallery", "new.db", "--model", "nowhere"], "nowhere holds no run"),
        (["index", ".", "--gallery", "new.db", "--index", "TREE"], "index must be one of"),
        (
            ["search", "a man", "--gallery", "none.db", "--html", "gone/out.html"],
            "name a file in a folder that exists",
        ),
        (
            ["search", "a man", "--gallery", "none.db", "--html", "."],
            "name a file in a folder that exists",
        ),
    ],
)
def test_bad_command_lines_get_one_line(tmp_path, command_line, arguments, message):
    done = command_line(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_names_that_are_no_text_do_not_reach_the_terminal(tmp_path, command_line):
    folder = folder_of(tmp_path / "in", 1)
    shutil.copy(folder / "0000.png", os.fsencode(folder) + b"/bad\xff.png")
    Image.fromarray(pictures(1, 3)[0]).save(folder / "red\x1b[31m\n.png")
    done = command_line("index", folder, "--gallery", "g.db")
    assert r"bad\udcff.png: its name is not text" in done.stdout and "2 images added" in done.stdout
    done = command_line("search", "a man", "--gallery", "g.db")
    assert r"red\x1b[31m\n.png" in done.stdout and "\x1b" not in done.stdout
