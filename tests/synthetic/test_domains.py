"""SynthPEDES on disk: the official layouts, read by the real loaders, byte-identical, whole or
absent."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from cskt import load_dataset
from cskt.errors import ConfigurationError, DataError
from cskt.synthetic import domains, label_map, synthetic_dataset
from cskt.synthetic.canvas import PART

SMALL = (4, 2, 3)


def tree_digest(folder):
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


@pytest.mark.parametrize("domain", ["A", "B", "C"])
def test_every_domain_is_written_and_read_back(domain, tmp_path):
    name = f"SynthPEDES-{domain}"
    folder = synthetic_dataset(name, tmp_path, identities=SMALL)
    data = load_dataset(name, tmp_path)
    assert data.synthetic and data.root == folder
    for split, count in zip((data.train, data.val, data.test), SMALL, strict=True):
        identities = np.unique(split.image_identities)
        assert len(identities) == count
        assert len(split.image_paths) == 4 * count
        assert len(split) == 8 * count
        cameras = np.array(split.cameras)
        for identity in identities:
            assert len(set(cameras[split.image_identities == identity])) == 4
    assert data.train.image_identities.min() == 0
    assert Image.open(data.test.image_paths[0]).size == (128, 256)


def test_byte_identical_between_runs_and_different_by_seed(tmp_path):
    digests = {}
    for folder, seed in (("first", 0), ("again", 0), ("other", 1)):
        domains.write_dataset("A", tmp_path / folder, seed, (2, 1, 1))
        digests[folder] = tree_digest(tmp_path / folder)
    assert digests["again"] == digests["first"]
    assert digests["other"] != digests["first"]


def test_masks_are_rebuilt_from_the_attribute_table(tmp_path):
    folder = synthetic_dataset("SynthPEDES-B", tmp_path, identities=(2, 1, 1))
    rows = json.loads((folder / "attributes.json").read_text())
    assert len(rows) == 16
    for row in rows:
        labels = label_map("B", row)
        for group, kind in row["shown"].items():
            if kind != "bald":
                assert (labels == PART[group]).any()


def test_an_interrupted_rendering_leaves_nothing_that_is_trusted(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(domains, "caption", stop)
    with pytest.raises(KeyboardInterrupt):
        synthetic_dataset("SynthPEDES-A", tmp_path, identities=(2, 1, 1))
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    folder = synthetic_dataset("SynthPEDES-A", tmp_path, identities=(2, 1, 1))
    assert (folder / "reid_raw.json").is_file()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    mine = tmp_path / "SynthPEDES-A" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    with pytest.raises(DataError, match=r"holds no reid_raw\.json"):
        synthetic_dataset("SynthPEDES-A", tmp_path, identities=(2, 1, 1))
    assert mine.read_text() == "keep"


def test_an_unknown_domain_is_named():
    with pytest.raises(ConfigurationError, match="SynthPEDES-D"):
        synthetic_dataset("SynthPEDES-D")
