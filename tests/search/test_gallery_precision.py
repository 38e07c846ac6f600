"""In which precision a gallery encodes images and queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cskt import CSKTError, Gallery
from cskt.search.folder import FolderRows
from tests.galleries import features, pictures, small_model

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
QUERY = "a red coat"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("backbone"))


def set_native_bf16(monkeypatch, native: bool) -> None:
    """A processor that computes bf16 natively, or not."""
    capabilities = {"avx512_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


def query_in(model, dtype: torch.dtype) -> np.ndarray:
    """The feature (D,) of :data:`QUERY` by a model whose blocks compute in ``dtype``."""
    tokens = model.tokenize([QUERY])
    with model.fused(dtype), torch.no_grad():
        encoded = model.encode_text(tokens, normalize=True)
    return encoded[0].float().numpy()


def images_in(model, dtype: torch.dtype, images: np.ndarray) -> np.ndarray:
    """The features (N, D) of images by such a model."""
    with model.fused(dtype):
        return features(model, images).float().numpy()


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-6)


def assert_encodes(gallery: Gallery, query: np.ndarray, images: np.ndarray) -> None:
    """A description, a picture and a stored image have these features."""
    assert_equal(gallery.encode(QUERY), query)
    picture = pictures(6)[4]
    assert_equal(gallery.encode(picture), images[4])
    for hit in gallery.search(QUERY, 6):
        index = int(hit.source.removeprefix("image "))
        assert_equal(gallery.encode(hit), images[index])


@pytest.mark.parametrize("native", [True, False], ids=["native bf16", "no bf16"])
def test_a_gallery_on_a_cpu_is_fp32_on_every_chip(native, tmp_path, model, monkeypatch):
    set_native_bf16(monkeypatch, native)
    query = query_in(model, torch.float32)
    images = images_in(model, torch.float32, pictures(6))
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(pictures(6))
        assert gallery.record["precision"] == "fp32"
        assert_encodes(gallery, query, images)


def test_images_and_queries_have_the_recorded_precision_wherever_it_is_opened(
    tmp_path, model, monkeypatch
):
    query = query_in(model, torch.bfloat16)
    images = images_in(model, torch.bfloat16, pictures(6))
    exact_query = query_in(model, torch.float32)
    exact_images = images_in(model, torch.float32, pictures(6))
    assert np.abs(query - exact_query).max() > 1e-4
    assert np.abs(images - exact_images).max() > 1e-4
    set_native_bf16(monkeypatch, True)
    with Gallery(tmp_path / "g.db", model, precision="bf16") as gallery:
        gallery.add(pictures(3))
        assert gallery.record["precision"] == "bf16"
    set_native_bf16(monkeypatch, False)  # another machine, which emulates it
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(pictures(6))
        assert gallery.record["precision"] == "bf16"
        assert_encodes(gallery, query, images)
        assert model.fused_dtype is None


def test_a_model_fused_in_another_precision_does_not_change_the_gallery(tmp_path, model):
    query = query_in(model, torch.float32)
    images = images_in(model, torch.float32, pictures(2))
    with Gallery(tmp_path / "g.db", model.fuse(torch.bfloat16)) as gallery:
        assert_equal(gallery.encode(QUERY), query)
        model.fuse(torch.bfloat16)
        picture = pictures(2)[1]
        assert_equal(gallery.encode(picture), images[1])
    model.unfuse()


def test_an_unknown_precision_is_refused(tmp_path, model):
    with pytest.raises(CSKTError, match="precision must be 'auto', 'fp32' or 'bf16', got 'fp16'"):
        Gallery(tmp_path / "none.db", model, precision="fp16")


def test_a_gallery_that_does_not_say_its_precision_is_refused(tmp_path, model, monkeypatch):
    create = FolderRows.create

    def without_precision(self, dimension, properties):
        kept = {name: value for name, value in properties.items() if name != "precision"}
        create(self, dimension, kept)

    monkeypatch.setattr(FolderRows, "create", without_precision)
    message = "precision unknown, which .* not read; index the images into a new gallery"
    with pytest.raises(CSKTError, match=message):
        Gallery(tmp_path / "old.db", model)
