"""What several test modules share."""

import sys

import pytest

from cskt import __main__ as cli


@pytest.fixture
def cskt(monkeypatch, capsys):
    """``cskt("train", ...)`` -> (exit code, stdout, stderr)."""
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["cskt", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()
    return call
