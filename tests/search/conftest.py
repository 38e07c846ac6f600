"""A small gallery, and a demo over the galleries of two models."""

import pytest

from cskt import Gallery
from tests.demos import close, two_galleries, two_sided
from tests.galleries import facts_of, pictures, small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def gallery(tmp_path, model):
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(pictures(12), facts_of(12))
        yield gallery


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    galleries = two_galleries(tmp_path_factory.mktemp("galleries"))
    yield galleries
    close(galleries)


@pytest.fixture
def shown(galleries):
    return two_sided(galleries)
