"""Names that go into the names of files, and locks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cskt.config import DATASETS, TrainConfig
from cskt.errors import ResourceError
from cskt.files import file_name, lock
from cskt.runs import run_name


@pytest.mark.parametrize("name", [*DATASETS, "my-people", "x.1_b"])
def test_a_plain_name_is_a_file_s_name_as_it_is(name):
    assert file_name(name) == name


@pytest.mark.parametrize(
    ("name", "plain"),
    [("my people", "my-people-"), ("a/../b", "a-b-"), ("Мои люди", ""), (".", ""), ("-x", "x-")],
)
def test_what_is_plain_of_another_is_kept_before_a_digest(name, plain):
    assert re.fullmatch(re.escape(plain) + "[0-9a-f]{8}", file_name(name))


@given(st.text(min_size=1).filter(str.isprintable))
def test_any_name_gives_a_short_safe_file_name(name):
    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,40}", file_name(name))


@given(st.text(min_size=1).filter(str.isprintable), st.text(min_size=1).filter(str.isprintable))
def test_different_names_give_different_files(one, other):
    assert (file_name(one) == file_name(other)) == (one == other)


def test_the_run_of_a_published_name_is_called_as_ever():
    assert run_name(TrainConfig.mini()).startswith("SynthPEDES-A-cskt-seed0-")
    assert run_name(TrainConfig()) == "CUHK-PEDES-cskt-seed0-52fedb65"


def test_the_runs_of_names_of_one_s_own_differ():
    names = ["my people", "my/people", "my-people", "人物"]
    assert len({run_name(TrainConfig(dataset=name)) for name in names}) == 4


@pytest.mark.parametrize("name", ["x" * 300, "missing/lock"])
def test_a_lock_that_cannot_be_made_is_not_waited_for(tmp_path, name):
    with pytest.raises(ResourceError, match="cannot be written .* a shorter name"):
        lock(tmp_path / name)
