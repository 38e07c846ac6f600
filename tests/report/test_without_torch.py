"""Tables, figures and the model card are made from run files and arrays: torch stays out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cskt import report

MODULES = sorted(path.stem for path in Path(report.__file__).parent.glob("[!_]*.py"))
PROGRAM = """
import importlib
import sys

for name in sys.argv[1:]:
    importlib.import_module(f"cskt.report.{name}")
    assert "torch" not in sys.modules, f"{name} imports torch"
"""


@pytest.mark.slow
def test_no_module_of_the_report_imports_torch():
    assert len(MODULES) > 10
    done = subprocess.run([sys.executable, "-c", PROGRAM, *MODULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_nothing_heavy():
    program = "import cskt, sys; assert not {'torch', 'pandas', 'pymilvus'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
