"""From the run files of ``benchmarks/`` to the tables of the efficiency page: time, memory, and
which aims were reached.

A *measurement* is the content of one such file. Figures of two of them, made on two machines or at
two times, are never averaged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cskt.errors import RunError
from cskt.report.tables import NOT_RUN

CUHK_PAIRS = 68_126  # training pairs of CUHK-PEDES
METHOD_LABELS = {
    "plain": "plain CSKT",
    "cskt": "CSKT",
    "compiled": "CSKT, compiled",
    "full": "full fine-tuning",
    "open_clip": "open_clip's own",
    "bpt": "BPT",
    "dat": "DAT",
    "lora": "LoRA",
}
ENCODING_LABELS = {
    "encode_image": "image, in a batch",
    "encode_text": "caption, in a batch",
    "one query": "one query alone",
    "loader": "loading and augmenting one image",
    "decode": "decoding one JPEG, once per data set",
}
_GALLERY_COLUMNS = {
    "vectors": "vectors",
    "where": "where",
    "index": "index",
    "dimension": "numbers each",
    "inserted_per_s": "inserted per second",
    "building_s": "then indexing, s",
    "query_ms": "query, ms",
    "query_ms_95": "its 95th percentile",
    "filtered_query_ms": "filtered query, ms",
    "numpy_ms": "numpy, ms",
    "opening_s": "opening, s",
    "recall_at_10": "recall at 10, percent",
    "memory_mb": "in memory, MB",
    "disk_mb": "on disk, MB",
}
# Names of the run files that the efficiency page expects.
THROUGHPUT = ("throughput-cpu", "throughput-cpu-bf16", "throughput-cuda")
RANKING = "ranking"
GALLERIES = ("gallery-embedded", "gallery-server")
DEVICES = ("devices-cpu", "devices-cuda")
RUN_FILES = (*THROUGHPUT, RANKING, *GALLERIES, *DEVICES)

Measurements = dict[str, dict[str, Any]]  # by the names of their run files


def read_measurements(folder: str | Path) -> Measurements:
    """The run files of the benchmarks by name, each with ``ratios``: ranking's are its first row
    over the others. Those of ``benchmarks/variation.py`` measure no speed: they are left out.

    Raises:
        RunError: a file is damaged.
    """
    measurements = {}
    for path in sorted(Path(folder).glob("*.json"), key=lambda path: path.stem):
        try:
            measurement = json.loads(path.read_text(encoding="utf-8"))
            if measurement.get("kind") == "variation":
                continue
            measurement["ratios"] = measurement.get("ratios") or _ratios_to_first_row(measurement)
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
        ) as error:
            raise RunError(
                f"run file {path} cannot be read ({error!r}); delete it and measure again."
            ) from error
        measurements[path.stem] = measurement
    return measurements


def _ratios_to_first_row(measurement: dict[str, Any]) -> dict[str, float]:
    """Seconds and extra memory of the first row of ranking over those of every other; none of
    other measurements."""
    rows = measurement["rows"]
    first = rows[0]
    ratios: dict[str, float] = {}
    if measurement.get("name") != RANKING:
        return ratios
    for row in rows[1:]:
        compared = f"{first['what']} / {row['what']}"
        ratios[f"seconds: {compared}"] = first["seconds"] / row["seconds"]
        ratios[f"extra memory: {compared}"] = first["extra_memory_mb"] / row["extra_memory_mb"]
    return ratios


def measurement_frame(measurement: dict[str, Any], key: str = "rows") -> pd.DataFrame:
    """The ``rows`` of a measurement, or the ``scaling`` of a throughput file, methods by their
    printed names."""
    frame = pd.DataFrame(measurement[key]).drop(columns="repeats", errors="ignore")
    if "method" in frame:
        frame["method"] = frame["method"].map(METHOD_LABELS)
    return frame


def machine_of(measurement: dict[str, Any]) -> str:
    """On what was measured, in a few words."""
    device = measurement["hardware"]["device"]
    threads = measurement["hardware"]["threads"]
    rates = measurement.get("rates", {})
    if "matmul_bf16" in rates:
        device = f"{device} with bf16"
    unit = "thread" if threads == 1 else "threads"
    return f"{device}, {threads} {unit}"


def measurement_evidence(measurements: Measurements) -> pd.DataFrame:
    """A row per expected run file: what was measured where, when, how long, at which commit; or
    that it was not."""
    lines = []
    for name in dict.fromkeys([*RUN_FILES, *measurements]):
        line = {"run file": name, "measured": NOT_RUN}
        if name in measurements:
            line |= _evidence(measurements[name])
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def _evidence(measurement: dict[str, Any]) -> dict[str, str]:
    settings = measurement["settings"]
    named = [name for name in ("backbone", "batch", "milvus", "engine") if name in settings]
    facts = [f"{name} {settings[name]}" for name in named]
    changes = " with local changes" if measurement["dirty"] else ""
    return {
        "measured": ", ".join(facts) or measurement["name"],
        "machine": machine_of(measurement),
        "seconds": f"{measurement['duration_s']:.0f}",
        "started": measurement["started"],
        "torch": measurement["versions"]["torch"],
        "commit": str(measurement["commit"])[:12] + changes,
    }


def step_table(measurement: dict[str, Any]) -> pd.DataFrame:
    """Time, memory and utilisation of every method's training step in a throughput file."""
    frame = measurement_frame(measurement)
    steps = frame[frame["what"] == "training step"].sort_values(["precision", "seconds"])
    seconds = steps["seconds"]
    pairs = steps["batch"]
    minutes_per_epoch = CUHK_PAIRS / pairs * seconds / 60
    table = steps[["method", "precision"]].copy()
    table["machine"] = machine_of(measurement)
    table["trained parameters"] = steps["trained"].map("{:,.0f}".format)
    table["milliseconds"] = (1e3 * seconds).map(short)
    table["pairs per second"] = (pairs / seconds).map(short)
    table["minutes per epoch of CUHK-PEDES"] = minutes_per_epoch.map(short)
    table["extra memory, MB"] = steps["extra_memory_mb"].map(short)
    table["share of the matmul rate"] = steps["utilisation"].map("{:.0%}".format)
    return table


def encoding_table(measurement: dict[str, Any]) -> pd.DataFrame:
    """Time per image, per caption and for a single query in a throughput file, and what feeding a
    step takes."""
    frame = measurement_frame(measurement)
    rows = pd.concat(frame[frame["what"] == what] for what in ENCODING_LABELS)
    table = pd.DataFrame()
    table["what"] = rows["what"].map(ENCODING_LABELS)
    table["method"] = rows["method"]
    table["precision"] = rows["precision"]
    table["machine"] = machine_of(measurement)
    table["milliseconds"] = (1e3 * rows["seconds"] / rows["batch"]).map(short)
    table["share of a training step"] = _loading_shares(rows, measurement["ratios"])
    return table


def _loading_shares(rows: pd.DataFrame, ratios: dict[str, float]) -> list[str]:
    """For the rows of the loader, its time over that of a step that loads; for others nothing."""
    shares = []
    for row in rows.itertuples():
        ratio = ratios.get(f"loader / step with loader: {row.precision}")
        known = row.what == "loader" and ratio is not None
        shares.append(f"{ratio:.1%}" if known else "")
    return shares


def short(value: float) -> str:
    """Three significant digits, or whole numbers from 100 on; NaN was not measured."""
    if pd.isna(value):
        return "not known"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def aims_table(measurements: Measurements, aims: str | Path) -> pd.DataFrame:
    """What was aimed at, from the csv file ``aims``, beside what was measured.

    ``aims`` has the columns run file, comparison, earlier trial and aim, such as ``"≥ 1.35"``.
    """
    table = pd.read_csv(aims, dtype=str, keep_default_na=False)
    measured = []
    reached = []
    for line in table.to_dict("records"):
        measurement = measurements.get(line["run file"], {"ratios": {}})
        value = measurement["ratios"].get(line["comparison"])
        if value is None:
            measured.append(NOT_RUN)
            reached.append("")
        else:
            measured.append(short(value))
            reached.append("yes" if _reaches(value, line["aim"]) else "no")
    return table.assign(**{"measured": measured, "aim reached": reached})


def _reaches(value: float, aim: str) -> bool:
    sign, bound = aim.split()
    if sign == "≥":
        return value >= float(bound)
    return value <= float(bound)


def gallery_table(measurements: Measurements) -> pd.DataFrame:
    """What ``benchmarks/gallery.py`` measured, a row per place, index and number of vectors."""
    frames = []
    for name in GALLERIES:
        if name in measurements:
            frames.append(pd.DataFrame(measurements[name]["rows"]))
    if not frames:
        return pd.DataFrame({"gallery": [NOT_RUN]})
    order = ["vectors", "where", "index"]
    rows = pd.concat(frames).sort_values(order, kind="stable", ignore_index=True)
    if "memory_mb" not in rows:  # files of earlier versions
        rows["memory_mb"] = float("nan")
    rows["disk_mb"] = rows["disk_mb"].where(rows["where"] == "embedded")
    table = rows[list(_GALLERY_COLUMNS)].rename(columns=_GALLERY_COLUMNS)
    numbers = table.select_dtypes("number").columns
    return table.assign(**table[numbers].map(short))
