"""notebooks/demo.py, which ``make demo`` calls, while it trains the run that the demo shows."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "notebooks" / "demo.py"


def test_each_epoch_of_the_training_is_one_line(finished, capsys):
    spec = importlib.util.spec_from_file_location("demo_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for row in finished.history:
        script.say_epoch({**row, "seconds": 12.4})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(finished.history)
    recall = finished.history[0]["val R@1"]
    assert lines[0] == f"epoch {finished.history[0]['epoch']}: val R@1 {recall:.2f}, 12 s"
