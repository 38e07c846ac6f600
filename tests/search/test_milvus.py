"""Where a gallery is: folders, servers, indexes, other versions, and several processes at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cskt.search.gallery
from cskt import CSKTError, Gallery
from tests.galleries import facts_of, folder_of, names, pictures

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


# Places without a gallery


def test_a_file_is_no_gallery(tmp_path, model):
    file = tmp_path / "old.db"
    file.write_bytes(b"SQLite format 3\0")
    with pytest.raises(CSKTError, match="is there but no gallery, which is a folder"):
        Gallery(file, model)


def test_a_folder_of_other_things_is_no_gallery_and_left_alone(tmp_path, model):
    photos = folder_of(tmp_path / "photos", 1)
    with pytest.raises(CSKTError, match="is there but no gallery"):
        Gallery(photos, model)
    assert [path.name for path in photos.iterdir()] == ["0000.png"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"create": False}, "there is no gallery at .* python -m cskt index"),
        ({"model": "cskt-mini", "index": "B-TREE"}, "index must be one of FLAT"),
        ({"model": "nowhere"}, "nowhere holds no run"),
    ],
)
def test_where_no_gallery_can_be_made_nothing_is_left_behind(tmp_path, settings, message):
    with pytest.raises(CSKTError, match=message):
        Gallery(tmp_path / "none.db", **settings)
    assert not (tmp_path / "none.db").exists()


def test_a_server_that_does_not_answer_is_named(model):
    with pytest.raises(CSKTError, match="is the Milvus server running"):
        Gallery("http://127.0.0.1:9", model)


@pytest.mark.parametrize("address", ["http://", Path("http://127.0.0.1:9")])
def test_a_malformed_address_is_no_folder(address, model):
    with pytest.raises(CSKTError, match="write it as http://host:19530"):
        Gallery(address, model)


# Galleries of another kind


def test_another_version_is_refused_and_left_alone(gallery, model, monkeypatch):
    monkeypatch.setattr(cskt.search.gallery, "FORMAT", "2")
    with pytest.raises(CSKTError, match="has format 1 and precision fp32, which this version"):
        Gallery(gallery.uri, model)
    monkeypatch.undo()
    assert len(Gallery(gallery.uri, model)) == 12


def test_a_damaged_gallery_is_named(gallery, model):
    gallery.close()
    for manifest in Path(gallery.uri).rglob("manifest.json*"):
        manifest.write_text("{")
    with pytest.raises(CSKTError, match="g.db cannot be opened"):
        Gallery(gallery.uri, model)


@pytest.mark.numerics
@pytest.mark.parametrize("index", ["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"])
def test_every_embedded_index_finds_the_same(tmp_path, model, index):
    images = pictures(40)
    with Gallery(tmp_path / "g.db", model, index=index) as gallery:
        gallery.add(images)
    with Gallery(tmp_path / "g.db", model) as gallery:
        assert gallery.record["index"] == index
        assert names(gallery.search(images[7], 3))[0] == "image 7"


# Servers


def test_a_server_is_used_by_its_address(tmp_path, model):
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "server"))
    uri = f"http://127.0.0.1:{port}"
    try:
        for name, count in [("one", 5), ("two", 7)]:
            with Gallery(uri, model, name=name, shards=1, thumbnails=tmp_path / name) as gallery:
                assert gallery.add(pictures(count)).added == len(gallery) == count
        with pytest.raises(CSKTError, match="holds no gallery 'three'"):
            Gallery(uri, name="three", create=False)
        with Gallery(uri, model, name="two", thumbnails=tmp_path / "two") as gallery:
            (hit,) = gallery.search(pictures(7)[6], 1)
            assert hit.thumbnail.parent.parent == tmp_path / "two"
    finally:
        server.stop(grace=0)
        database.close()


def test_a_server_without_empty_columns_filters_alike(tmp_path, model, monkeypatch):
    """What a Milvus before 2.5 is given: facts as dynamic fields (milvus-lite, under another
    version's name)."""
    monkeypatch.setattr("pymilvus.MilvusClient.get_server_version", lambda self: "v2.3.5")
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(pictures(12), facts_of(12))
        hits = gallery.search("a red coat", 50, "camera == 'c1' and identity < 4 and floor == 1")
        assert {(hit.source, hit.identity, hit.camera) for hit in hits} == {
            ("image 1", 0, "c1"),
            ("image 7", 3, "c1"),
        }
        assert gallery.values("camera") == ["c0", "c1", "c2"]
        assert gallery.delete("identity == 0") == 2


# Several processes

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


def started(code: str, *arguments: str) -> subprocess.Popen:
    """A Python process that runs ``code``, once it has opened its gallery."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "open\n", process.communicate()[1]
    return process


def test_two_readers_and_a_writer_at_once_and_the_one_that_serves_them_is_killed(tmp_path):
    place = str(tmp_path / "g.db")
    images = np.random.default_rng(2).integers(0, 256, (20, 16, 8, 3), dtype=np.uint8)
    with Gallery(place, "cskt-mini") as gallery:
        gallery.add(images, [{"camera": "c1"}] * 20)
    serving = started(READER, place, "120", "100000")  # the first to open it
    reader = started(READER, place, "120", "320")
    writer = started(WRITER, place)
    time.sleep(0.5)
    serving.send_signal(signal.SIGKILL)
    wrote, fault = writer.communicate(timeout=120)
    assert wrote == "300\n", fault
    read, fault = reader.communicate(timeout=120)
    assert read.split()[1] == "320", fault
    serving.communicate()
    with Gallery(place) as gallery:
        assert len(gallery) == 320
        assert len({hit.id for hit in gallery.search("coat", 400)}) == 320
