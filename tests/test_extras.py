"""What is said where a package of an extra is missing."""

import pytest

from cskt.errors import ResourceError
from cskt.extras import extra


def test_a_missing_package_is_a_sentence_that_names_the_extra():
    message = r"^nowhere is not installed; pip install 'cskt\[search\]' brings it\.$"
    with pytest.raises(ResourceError, match=message), extra("search"):
        import nowhere.below  # noqa: F401


def test_a_missing_module_of_our_own_is_no_matter_of_extras():
    with pytest.raises(ModuleNotFoundError, match="cskt.nowhere"), extra("search"):
        import cskt.nowhere  # noqa: F401


def test_an_import_that_succeeds_is_left_alone():
    with extra("search"):
        import json
    assert json.loads("1") == 1
