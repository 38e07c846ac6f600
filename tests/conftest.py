"""What several test modules share."""

import sys

import hypothesis
import pytest
import yaml

from cskt.cli import main
from cskt.training import train
from tests.tiny_runs import register_backbone, tiny_config, write_dataset

# No example has a time limit: a slow or busy machine is no fault.
hypothesis.settings.register_profile(
    "cskt", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("cskt")


@pytest.fixture
def cskt(monkeypatch, capsys):
    """``cskt("train", ...)`` -> (exit code, stdout, stderr)."""

    def call(*arguments):
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["cskt", *words])
        with pytest.raises(SystemExit) as caught:
            main.main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def tiny_settings(tiny_data, tmp_path, monkeypatch):
    """A yaml file with the settings of a tiny run in ``run``; the current folder is tmp_path, and
    so is what is kept beside data."""
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tiny_data, tmp_path / "run").to_dict()))
    return path


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("shared") / "cache"


@pytest.fixture
def own_cache(shared_cache, monkeypatch):
    """Decoded images of the tiny data are kept in a folder of the test session."""
    monkeypatch.setenv("CSKT_CACHE", str(shared_cache))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """The folder of the tiny data set; the tiny backbone is known to open_clip too."""
    folder = tmp_path_factory.mktemp("tiny")
    register_backbone(folder)
    return write_dataset(folder / "CUHK-PEDES")


@pytest.fixture(scope="session")
def finished(tiny_data, shared_cache, tmp_path_factory):
    """A run of three epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSKT_CACHE", str(shared_cache))
        return train(tiny_config(tiny_data, tmp_path_factory.mktemp("runs") / "finished"))
