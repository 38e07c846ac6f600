"""What it takes to make the book again: from the files beside the executed notebooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

_SUFFIX = ".run.json"


def page_times(folder: str | Path) -> pd.DataFrame:
    """A row for each executed notebook in ``folder``: its source, the seconds it took, when it ran
    and at which commit."""
    rows = []
    for name, record in _records(folder).items():
        row = {
            "page": name,
            "source": record["notebook"],
            "seconds": f"{record['duration_s']:.0f}",
            "started": record["started"][:10],
            "commit": str(record.get("commit"))[:10],
        }
        rows.append(row)
    return pd.DataFrame(rows)


def totals(folder: str | Path) -> dict[str, float]:
    """``page_minutes``: how long all notebooks in ``folder`` took together."""
    seconds = [record["duration_s"] for record in _records(folder).values()]
    return {"page_minutes": sum(seconds) / 60}


def machine(folder: str | Path) -> str:
    """A sentence that names the machines on which the notebooks in ``folder`` were executed."""
    names: dict[str, None] = {}
    for record in _records(folder).values():
        hardware = record["hardware"]
        names[f"{hardware['processor']}, {hardware['cpu_count']} processors"] = None
    return f"Executed on: {'; '.join(names)}." if names else "No notebook has been executed."


def _records(folder: str | Path) -> dict[str, dict[str, Any]]:
    """By name, what was noted of each notebook."""
    records = {}
    for path in sorted(Path(folder).glob(f"*{_SUFFIX}")):
        records[path.name.removesuffix(_SUFFIX)] = json.loads(path.read_text(encoding="utf-8"))
    return records
