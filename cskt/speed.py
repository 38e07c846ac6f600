"""From the benchmarks' run files to the tables of the efficiency page: time, memory, and which aims were reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from .config import CSKTError
from .results import NOT_RUN

CUHK_PAIRS = 68_126  # training pairs of CUHK-PEDES
BENCHMARKED = {"plain": "plain CSKT", "cskt": "CSKT", "compiled": "CSKT, compiled", "full": "full fine-tuning",
               "open_clip": "open_clip's own", "bpt": "BPT", "dat": "DAT", "lora": "LoRA"}
_RANKED = "full argsort, Python loops / retrieval_metrics"
AIMS: dict[str, dict[str, tuple[str, str]]] = {  # run file -> its ratio -> (an earlier trial's figure, the aim)
    "throughput-cpu": {
        "training step: plain fp32 / cskt fp32": ("1.21", "≥ 1.35"),
        "training step: plain fp32 / cskt bf16": ("2.36", "≥ 3"),
        "extra memory: cskt fp32 / plain fp32": ("0.74", "≤ 0.6"),
        "training step: full fp32 / cskt fp32": ("1.57", "≥ 1.8"),
        "encode_text: open_clip fp32 / cskt fp32": ("1.57", "≥ 2.2"),
        "encode_image: cskt fp32 / open_clip fp32": ("0.91", "≤ 0.9")},
    "ranking": {f"seconds: {_RANKED}": ("", "≥ 10"), f"extra memory: {_RANKED}": ("", "≥ 10")},
    "throughput-cuda": {
        "utilisation: training step cskt bf16": ("", "≥ 0.45"),
        "training step: plain bf16 / cskt bf16": ("", "≥ 3"),
        "minutes of training at CUHK-PEDES size: bf16": ("", "≤ 20")}}
_STEP = ("{}: a training step of CSKT in fp32 is {:.2f} times as fast as the plain one's{}; in fp32 it needs {:.2f} "
         "times its extra memory and is {:.2f} times as fast as full fine-tuning's.")


def read_benchmarks(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The run files of the benchmarks by name, each with ``ratios``: ranking's are its first row over the others."""
    records = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            records[path.stem] = record = json.loads(path.read_text())
            first, *others = record["rows"]
            record["ratios"] = record.get("ratios") or {
                f"{name}: {first['what']} / {row['what']}": first[key] / row[key] for row in others
                for name, key in (("seconds", "seconds"), ("extra memory", "extra_memory_mb"))}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise CSKTError(f"run file {path} cannot be read ({error!r}); delete it and measure again.") from error
    return records


def benchmark_frame(record: dict[str, Any], part: str = "rows") -> pd.DataFrame:
    """The ``rows`` of a benchmark's file, or the ``scaling`` of a throughput file, methods by their printed names."""
    frame = pd.DataFrame(record[part]).drop(columns="repeats", errors="ignore")
    return frame.assign(method=frame["method"].map(BENCHMARKED)) if "method" in frame else frame


def step_table(record: dict[str, Any]) -> pd.DataFrame:
    """Time, memory and utilisation of every method's training step in a throughput file."""
    steps = benchmark_frame(record).query("what == 'training step'").sort_values(["precision", "seconds"])
    return steps[["method", "precision"]].assign(**{
        "trained parameters": [f"{int(count):,}" for count in steps["trained"]],
        "milliseconds": (1e3 * steps["seconds"]).map(_short),
        "pairs per second": (steps["batch"] / steps["seconds"]).map(_short),
        "minutes per epoch of CUHK-PEDES": (CUHK_PAIRS / steps["batch"] * steps["seconds"] / 60).map(_short),
        "extra memory, MB": ["not known" if pd.isna(value) else _short(value) for value in steps["extra_memory_mb"]],
        "share of the matmul rate": steps["utilisation"].map("{:.0%}".format)})


def encoding_table(record: dict[str, Any]) -> pd.DataFrame:
    """Time per image, per caption and for a single query in a throughput file, and what feeding a step takes."""
    kinds = {"encode_image": "image, in a batch", "encode_text": "caption, in a batch", "one query": "one query alone",
             "loader": "loading and augmenting one image", "decode": "decoding one JPEG, once per data set"}
    rows = benchmark_frame(record)
    rows = rows[rows["what"].isin(kinds)].sort_values("what", key=lambda column: column.map(list(kinds).index),
                                                      kind="stable")
    loads = {name: f"{value:.1%}" for name, value in record["ratios"].items() if name.startswith("loader / step")}
    share = [loads.get(f"loader / step with loader: {row.precision}", "") if row.what == "loader" else ""
             for row in rows.itertuples()]
    return pd.DataFrame({
        "what": rows["what"].map(kinds), "method": rows["method"], "precision": rows["precision"],
        "milliseconds": (1e3 * rows["seconds"] / rows["batch"]).map(_short), "share of a training step": share})


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def aims_table(records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """What was aimed at beside what was measured."""
    rows = []
    for file, name, trial, aim in ((file, name, *pair) for file, aims in AIMS.items() for name, pair in aims.items()):
        value, (sign, bound) = records.get(file, {"ratios": {}})["ratios"].get(name), aim.split()
        reached = value is not None and (value >= float(bound) if sign == "≥" else value <= float(bound))
        rows.append({"run file": file, "comparison": name, "earlier trial": trial, "aim": aim,
                     "measured": NOT_RUN if value is None else _short(value),
                     "aim reached": "" if value is None else "yes" if reached else "no"})
    return pd.DataFrame(rows)


def describe_benchmarks(records: dict[str, dict[str, Any]]) -> list[str]:
    """A line per expected run file: what was measured where, when, how long, at which commit; or that it was not."""
    lines = dict.fromkeys(AIMS, NOT_RUN)
    for file, record in records.items():
        machine, made, commit = record["hardware"], record["settings"], str(record["commit"])[:12]
        what = f"{made['backbone']}, batch {made['batch']}, " if "backbone" in made else ""
        lines[file] = (f"{what}on {machine['device']} ({machine['threads']} threads), {record['duration_s']:.0f} s "
                       f"from {record['started']}, torch {record['versions']['torch']}, commit {commit}"
                       f"{' with local changes' if record['dirty'] else ''}")
    return [f"{file}: {line}" for file, line in lines.items()]


def benchmark_findings(records: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence per throughput file and one on the aims, with the numbers of the run files."""
    table, (fast, half, *others) = aims_table(records), list(AIMS["throughput-cpu"])[:4]
    lines = []
    for file, record in records.items():
        ratios = record["ratios"]
        if {fast, *others} <= ratios.keys():
            bf16 = f", in bf16 {ratios[half]:.2f} times" if half in ratios else " (this machine has no bf16)"
            lines.append(_STEP.format(file, ratios[fast], bf16, *(ratios[name] for name in others)))
    missed, measured = table.query("`aim reached` == 'no'")["comparison"], (table["aim reached"] != "").sum()
    return [*lines, f"Of {len(table)} aims {measured} were measured here and {measured - len(missed)} reached"
            + (f"; not reached: {'; '.join(missed)}." if len(missed) else ".")]


def published_efficiency(path: str | Path) -> pd.DataFrame:
    """Published figures of other code on other machines, with their sources; nothing of ours is in this table."""
    return pd.read_csv(path).rename(columns={"trainable_params_millions": "trained parameters, millions (published)",
                                             "memory_mb": "training memory, MB (published)"})
