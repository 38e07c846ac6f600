"""What several test modules share."""

import sys

import hypothesis
import pytest

from cskt import __main__ as cli

# No example has a time limit: a slow or busy machine is no fault.
hypothesis.settings.register_profile(
    "cskt", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("cskt")


@pytest.fixture
def cskt(monkeypatch, capsys):
    """``cskt("train", ...)`` -> (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["cskt", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code or 0, *capsys.readouterr()

    return call
