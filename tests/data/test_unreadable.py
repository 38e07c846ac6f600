"""Images that cannot be read: found once, left out with their captions, and listed."""

import numpy as np
import pytest
import torch

from cskt.config import TrainConfig
from cskt.data import unreadable
from cskt.data.datasets import load_dataset
from cskt.data.loading import load_images
from cskt.data.unreadable import find_unreadable, leave_out, listed
from cskt.errors import ConfigurationError, DataError
from cskt.runs import run_name
from tests.tiny_runs import IMAGE_SIZE, write_dataset


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    return write_dataset(tmp_path / "CUHK-PEDES")


def damage(data, name):
    """Cut an image of the tiny data set short."""
    path = data / "imgs" / "CUHK01" / name
    path.write_bytes(path.read_bytes()[:200])
    return path


def test_a_whole_split_has_none(data):
    train = load_dataset("CUHK-PEDES", data).train
    assert find_unreadable(train, IMAGE_SIZE) == {}
    assert listed(train, {}, data) is None


def test_cut_and_foreign_files_are_found_with_the_reason(data):
    damage(data, "train_1_0.png")
    (data / "imgs" / "CUHK01" / "train_4_1.png").write_text("<html>not found</html>")
    dataset = load_dataset("CUHK-PEDES", data)
    found = find_unreadable(dataset.train, IMAGE_SIZE)
    assert list(found) == [2, 9]
    assert found[2].startswith("cannot be read (")
    assert found[9] == "not an image"
    said = listed(dataset.train, found, dataset.root)
    assert said["images"] == said["captions"] == 2
    assert said["of"] == 12
    assert list(said["files"]) == ["imgs/CUHK01/train_1_0.png", "imgs/CUHK01/train_4_1.png"]


def test_they_are_looked_for_once_until_a_file_changes(data, monkeypatch):
    path = data / "imgs" / "CUHK01" / "train_1_0.png"
    whole = path.read_bytes()
    damage(data, "train_1_0.png")
    train = load_dataset("CUHK-PEDES", data).train
    found = find_unreadable(train, IMAGE_SIZE)
    with monkeypatch.context() as patch:
        patch.setattr(unreadable, "decode_image", None)
        assert find_unreadable(train, IMAGE_SIZE) == found
    path.write_bytes(whole)
    assert find_unreadable(train, IMAGE_SIZE) == {}


def test_what_is_left_is_the_split_without_them(data):
    whole = load_dataset("CUHK-PEDES", data).test
    pixels = load_images(whole, IMAGE_SIZE)
    damage(data, "test_0_1.png")
    split = load_dataset("CUHK-PEDES", data).test
    left = leave_out(split, find_unreadable(split, IMAGE_SIZE))
    kept = np.delete(np.arange(12), 1)
    assert left.image_paths == tuple(split.image_paths[image] for image in kept)
    assert left.captions == tuple(split.captions[image] for image in kept)
    assert left.image_identities.tolist() == split.image_identities[kept].tolist()
    assert left.caption_identities.tolist() == split.caption_identities[kept].tolist()
    assert torch.equal(load_images(left, IMAGE_SIZE), pixels[torch.from_numpy(kept)])


def test_a_split_without_a_readable_image_is_refused(data):
    for path in (data / "imgs" / "CUHK01").glob("val_*"):
        path.write_bytes(b"")
    val = load_dataset("CUHK-PEDES", data).val
    with pytest.raises(DataError, match="'val' has no image that can be read: .*not an image"):
        find_unreadable(val, IMAGE_SIZE)


def test_the_setting_is_part_of_what_a_run_is():
    assert run_name(TrainConfig(on_error="raise")) == run_name(TrainConfig())
    assert run_name(TrainConfig(on_error="skip")) != run_name(TrainConfig())
    with pytest.raises(ConfigurationError, match="on_error must be 'raise' or 'skip'"):
        TrainConfig(on_error="ignore")
