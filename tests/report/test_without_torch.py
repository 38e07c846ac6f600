"""Tables, figures and the model card are made from run files and arrays: torch stays out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cskt

MODULES = (
    "choices",
    "experiments",
    "figures",
    "grid_figures",
    "grid_tables",
    "notebook",
    "probe_figures",
    "publishing",
    "results",
    "run_files",
    "settings",
    "speed",
    "speed_figures",
    "style",
    "variation",
)
# The package itself exports the model, so a package without contents stands for it.
PROGRAM = """
import importlib
import sys
import types

package = types.ModuleType("cskt")
package.__path__ = [sys.argv[1]]
sys.modules["cskt"] = package
for name in sys.argv[2:]:
    importlib.import_module(f"cskt.{name}")
    assert "torch" not in sys.modules, f"{name} imports torch"
"""


@pytest.mark.slow
def test_no_module_of_the_report_imports_torch():
    folder = str(Path(cskt.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, *MODULES], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
