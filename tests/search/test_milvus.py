"""Where a gallery is: folders, servers, indexes, other versions, and several processes at once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cskt.search.gallery
from cskt import CSKTError, Gallery
from cskt.search.folder import FolderRows
from cskt.search.indexing import Added
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
    monkeypatch.setattr(cskt.search.gallery, "FORMAT", "3")
    with pytest.raises(CSKTError, match="has format 2 and precision fp32, which this version"):
        Gallery(gallery.uri, model)
    monkeypatch.undo()
    assert len(Gallery(gallery.uri, model)) == 12


def test_a_damaged_gallery_is_named(gallery, model):
    gallery.close()
    Path(gallery.uri, "gallery.sqlite").write_bytes(b"{" * 4096)
    with pytest.raises(CSKTError, match="g.db cannot be read or written.*damaged"):
        Gallery(gallery.uri, model)


def test_a_gallery_that_lost_vectors_is_named(gallery, model):
    gallery.close()
    os.truncate(Path(gallery.uri, "gallery.vectors"), 100)
    with Gallery(gallery.uri, model) as again, pytest.raises(CSKTError, match="is damaged"):
        again.search("coat")


def test_a_gallery_of_milvus_lite_is_to_be_indexed_again(tmp_path, model):
    (tmp_path / "g.db" / "collections").mkdir(parents=True)
    with pytest.raises(CSKTError, match="earlier version.*into a new gallery"):
        Gallery(tmp_path / "g.db", model)


def test_an_index_that_only_servers_have_is_refused_in_a_folder(tmp_path, model):
    with pytest.raises(CSKTError, match="HNSW is for a Milvus server"):
        Gallery(tmp_path / "g.db", model, index="HNSW")


@pytest.mark.parametrize("name", ["../other", "a/b", "", "é"])
def test_a_name_that_is_no_file_s_is_refused(tmp_path, model, name):
    with pytest.raises(CSKTError, match="named by letters"):
        Gallery(tmp_path / "g.db", model, name=name)


@pytest.mark.parametrize("file", ["gallery.sqlite", "gallery.vectors"])
def test_a_gallery_s_files_are_no_links(gallery, model, tmp_path, file):
    gallery.close()
    path = Path(gallery.uri, file)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CSKTError, match="is a link"):
        Gallery(gallery.uri, model)


# Servers


@pytest.fixture
def server(tmp_path):
    """The address of milvus-lite, which stands for a server."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "server"))
    yield f"http://127.0.0.1:{port}"
    server.stop(grace=0)
    database.close()


def test_a_server_is_used_by_its_address(tmp_path, model, server):
    for name, count in [("one", 5), ("two", 7)]:
        with Gallery(server, model, name=name, shards=1, thumbnails=tmp_path / name) as gallery:
            assert gallery.add(pictures(count)).added == len(gallery) == count
            assert gallery.add(pictures(count)) == Added(0, count)
    with pytest.raises(CSKTError, match="holds no gallery 'three'"):
        Gallery(server, name="three", create=False)
    with Gallery(server, model, name="two", thumbnails=tmp_path / "two") as gallery:
        (hit,) = gallery.search(pictures(7)[6], 1)
        assert hit.thumbnail.parent.parent == tmp_path / "two"
        assert names(gallery.search(hit, 1)) == [hit.source]
        with pytest.raises(CSKTError, match="filter.*is not understood"):
            gallery.search("coat", where="camera = 'x")
        gallery.drop()
        assert logging.getLogger("pymilvus").level != logging.CRITICAL


@pytest.mark.parametrize(
    "where",
    [
        "camera == 'c1'",
        'camera != "c1"',
        "identity in [1, 2] and floor == 1",
        "identity not in [1, 2]",
        "not (identity > 3) || camera == 'c0'",
        "identity > 1 and identity <= 4",
        "time >= '2024-01-05' && floor == 0",
        "camera like 'c%'",
        "floor > 0 or nothing == 1",
        "identity % 2 == 0",
        "$meta['floor'] == 1",
    ],
)
def test_a_filter_means_the_same_in_a_folder_and_on_a_server(gallery, model, server, where):
    with Gallery(server, model, thumbnails=Path(gallery.uri) / "other") as other:
        other.add(pictures(12), facts_of(12))
        expected = sorted(names(other.search("coat", 50, where)))
    assert expected
    assert sorted(names(gallery.search("coat", 50, where))) == expected


def test_a_server_without_empty_columns_filters_alike(tmp_path, model, server, monkeypatch):
    """What a Milvus before 2.5 is given: facts as dynamic fields (milvus-lite, under another
    version's name)."""
    monkeypatch.setattr("pymilvus.MilvusClient.get_server_version", lambda self: "v2.3.5")
    with Gallery(server, model, thumbnails=tmp_path / "small") as gallery:
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


def test_two_readers_and_two_writers_at_once_one_of_which_is_killed(tmp_path):
    place = str(tmp_path / "g.db")
    images = np.random.default_rng(2).integers(0, 256, (20, 16, 8, 3), dtype=np.uint8)
    with Gallery(place, "cskt-mini") as gallery:
        gallery.add(images, [{"camera": "c1"}] * 20)
    readers = [started(READER, place, "120", "320"), started(READER, place, "120", "320")]
    killed = started(WRITER, place)
    writer = started(WRITER, place)  # of the same images
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    wrote, fault = writer.communicate(timeout=120)
    assert 0 < int(wrote) <= 300, fault
    for reader in readers:
        read, fault = reader.communicate(timeout=120)
        assert read.split()[1] == "320", fault
    with Gallery(place) as gallery:
        assert len(gallery) == 320
        hits = gallery.search("coat", 400)
        assert len({hit.id for hit in hits}) == 320


VECTORS = """
import sys, numpy as np
from cskt.search.folder import FolderRows
rows = FolderRows(sys.argv[1], "rows")
print("open", flush=True)
for number in range(10**6):
    vector = np.full(8, number, np.float32)
    rows.exists()
    rows.insert([{"id": f"{sys.argv[2]}-{number}", "vector": vector, "source": str(number)}])
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    rows = FolderRows(str(tmp_path), "rows")
    rows.create(8, {})
    for repeat in range(3):
        process = started(VECTORS, str(tmp_path), str(repeat))
        for _ in range(20 + repeat):
            acknowledged = int(process.stdout.readline())
        process.kill()
        process.communicate()
        for number in range(acknowledged + 1):
            assert rows.vector(f"{repeat}-{number}") == pytest.approx(number)
    # Nothing half-written is found, and every row has its own vector.
    found = rows.search(np.full(8, 1, np.float32), 16_384, "")
    assert len(found) == rows.count()
    for row in found:
        assert row["distance"] == 8 * float(row["entity"]["source"])
