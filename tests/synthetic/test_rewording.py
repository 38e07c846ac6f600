"""A reworded caption says what the original says, in the words of another domain."""

from __future__ import annotations

import dataclasses
import re

import pytest

from cskt import load_dataset
from cskt.data.datasets import PersonRetrievalDataset
from cskt.errors import ConfigurationError, DataError
from cskt.synthetic import reworded, synthetic_dataset
from cskt.synthetic.mentions import attribute_rows, find_mentions


@pytest.fixture(scope="module", params=["A", "B", "C"])
def data(request, tmp_path_factory) -> PersonRetrievalDataset:
    folder = tmp_path_factory.mktemp("data")
    name = f"SynthPEDES-{request.param}"
    synthetic_dataset(name, folder, identities=(2, 1, 12))
    return load_dataset(name, folder)


@pytest.mark.parametrize("domain", ["A", "B", "C"])
def test_the_same_attributes_of_the_same_image_are_named(data, domain):
    rows = attribute_rows(data, range(len(data.test.image_paths)))
    captions = reworded(data, domain)
    assert len(captions) == len(data.test.captions)
    for image, before, after in zip(
        data.test.caption_images, data.test.captions, captions, strict=True
    ):
        shown = rows[image]["shown"]
        assert find_mentions(after, shown).keys() == find_mentions(before, shown).keys()
        assert (" over " in after) == (" over " in before)  # a t-shirt under a jacket


def test_captions_are_always_the_same(data):
    assert reworded(data, "B") == reworded(data, "B")


@pytest.mark.parametrize(
    ("domain", "people"),
    [("A", "man|woman"), ("B", "male pedestrian|female pedestrian"), ("C", "guy|girl")],
)
def test_people_are_called_as_the_domain_calls_them(data, domain, people):
    captions = reworded(data, domain)
    calling = [text for text in captions if re.search(rf"\b({people})\b", text.lower())]
    assert len(calling) > 0.75 * len(captions)


def test_another_wording_is_another_text(data):
    own = data.name.removeprefix("SynthPEDES-")
    for domain in {"A", "B", "C"} - {own}:
        captions = reworded(data, domain)
        assert not set(captions) & set(data.test.captions)


def test_an_unknown_domain_is_named(data):
    with pytest.raises(ConfigurationError, match="'D' is no domain"):
        reworded(data, "D")


def test_real_data_have_no_other_wording(data):
    real = dataclasses.replace(data, name="CUHK-PEDES")
    with pytest.raises(DataError, match="only SynthPEDES"):
        reworded(real, "B")
