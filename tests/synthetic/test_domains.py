"""SynthPEDES on disk: the official layouts, read by the real loaders, byte-identical, whole or
absent."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from cskt import CSKTError, load_dataset
from cskt.data.synthetic import domains, label_map, synthetic_dataset
from cskt.data.synthetic.canvas import PART

SMALL = (4, 2, 3)


def tree_digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.parametrize("domain", ["A", "B", "C"])
def test_written_and_read_back(domain, tmp_path):
    name = f"SynthPEDES-{domain}"
    folder = synthetic_dataset(name, tmp_path, identities=SMALL)
    data = load_dataset(name, tmp_path)
    assert data.synthetic and data.root == folder
    for split, count in zip((data.train, data.val, data.test), SMALL, strict=True):
        assert len(np.unique(split.image_identities)) == count
        assert len(split.image_paths) == 4 * count and len(split) == 8 * count
        assert all(
            len(set(np.array(split.cameras)[split.image_identities == identity])) == 4
            for identity in np.unique(split.image_identities)
        )
    assert data.train.image_identities.min() == 0
    assert Image.open(data.test.image_paths[0]).size == (128, 256)


def test_byte_identical_between_runs_and_different_by_seed(tmp_path):
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        domains.write_dataset("A", tmp_path / folder, seed, (2, 1, 1))
    one, two, three = (tree_digest(tmp_path / folder) for folder in ("one", "two", "three"))
    assert one == two != three


def test_masks_are_rebuilt_from_the_attribute_table(tmp_path):
    folder = synthetic_dataset("SynthPEDES-B", tmp_path, identities=(2, 1, 1))
    rows = json.loads((folder / "attributes.json").read_text())
    assert len(rows) == 16
    for row in rows:
        labels = label_map("B", row)
        for group in row["shown"]:
            if row["shown"][group] != "bald":
                assert (labels == PART[group]).any()


def test_an_interrupted_rendering_leaves_nothing_that_is_trusted(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(domains, "caption", stop)
    with pytest.raises(KeyboardInterrupt):
        synthetic_dataset("SynthPEDES-A", tmp_path, identities=(2, 1, 1))
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert (
        synthetic_dataset("SynthPEDES-A", tmp_path, identities=(2, 1, 1)) / "reid_raw.json"
    ).is_file()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "SynthPEDES-A").mkdir()
    (tmp_path / "SynthPEDES-A" / "mine.txt").write_text("keep")
    with pytest.raises(CSKTError, match=r"holds no reid_raw\.json"):
        synthetic_dataset("SynthPEDES-A", tmp_path, identities=(2, 1, 1))
    assert (tmp_path / "SynthPEDES-A" / "mine.txt").read_text() == "keep"


def test_unknown_domain():
    with pytest.raises(CSKTError, match="SynthPEDES-D"):
        synthetic_dataset("SynthPEDES-D")
