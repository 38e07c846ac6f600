"""From the benchmarks' run files to the tables of the efficiency page: time, memory, and which aims
were reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cskt.errors import CSKTError

from .results import NOT_RUN

CUHK_PAIRS = 68_126  # training pairs of CUHK-PEDES
BENCHMARKED = {
    "plain": "plain CSKT",
    "cskt": "CSKT",
    "compiled": "CSKT, compiled",
    "full": "full fine-tuning",
    "open_clip": "open_clip's own",
    "bpt": "BPT",
    "dat": "DAT",
    "lora": "LoRA",
}
_RANKED = "full argsort, Python loops / retrieval_metrics"
_STEPS = (
    "training step: plain fp32 / cskt fp32",
    "extra memory: cskt fp32 / plain fp32",
    "training step: full fp32 / cskt fp32",
)
_HALF = "training step: plain fp32 / cskt bf16"
_CPU_AIMS = {  # of either machine
    _STEPS[0]: ("1.21", "≥ 1.35"),
    _STEPS[1]: ("0.74", "≤ 0.6"),
    _STEPS[2]: ("1.57", "≥ 1.8"),
    "encode_text: open_clip fp32 / cskt fp32": ("1.57", "≥ 2.2"),
    "encode_image: cskt fp32 / open_clip fp32": ("0.91", "≤ 0.9"),
}
AIMS: dict[
    str, dict[str, tuple[str, str]]
] = {  # run file -> its ratio -> (an earlier trial's figure, the aim)
    "throughput-cpu": _CPU_AIMS,
    "throughput-cpu-bf16": {
        _HALF: ("2.36", "≥ 3"),
        **_CPU_AIMS,
    },  # a processor that computes bf16 natively
    "ranking": {f"seconds: {_RANKED}": ("", "≥ 10"), f"extra memory: {_RANKED}": ("", "≥ 10")},
    "throughput-cuda": {
        "utilisation: training step cskt bf16": ("", "≥ 0.45"),
        "training step: plain bf16 / cskt bf16": ("", "≥ 3"),
        "minutes of training at CUHK-PEDES size: bf16": ("", "≤ 20"),
    },
}
GALLERIES = ("gallery-embedded", "gallery-server")  # run files of benchmarks/gallery.py
GIB = 2**30
# Bytes of memory per vector of D numbers: what an index keeps of the vector, and its links (HNSW: 2
# M = 32 to neighbours, of 4 bytes, the layers above add a sixteenth) or, for DISKANN, with Milvus'
# defaults, codes of an eighth of the vectors' bytes and a cache of a tenth, with graph and vectors
# on disk (at most 64 links).
INDEX_BYTES: dict[str, tuple[Callable[[int], float], Callable[[int], float]]] = {
    "FLAT": (lambda d: 4 * d, lambda d: 4 * d),
    "IVF_SQ8": (lambda d: d, lambda d: 5 * d),
    "HNSW": (lambda d: 4 * d + 136, lambda d: 8 * d + 136),
    "DISKANN": (lambda d: 0.9 * d, lambda d: 8 * d + 256),
}
_STEP = (
    "{}: a training step of CSKT in fp32 is {:.2f} times as fast as the plain one's{}; in fp32 it needs {:.2f} "
    "times its extra memory and is {:.2f} times as fast as full fine-tuning's."
)


def read_benchmarks(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The run files of the benchmarks by name, each with ``ratios``: ranking's are its first row
    over the others.

    Those of benchmarks/variation.py measure no speed: they are left out.
    """
    records = {}
    for path in sorted(Path(folder).glob("*.json"), key=lambda path: path.stem):
        try:
            record = json.loads(path.read_text())
            if record.get("kind") == "variation":  # a result of training, not of speed
                continue
            records[path.stem] = record
            first, *others = record["rows"]
            compared = (
                {}
                if record.get("name") == "gallery"
                else {"seconds": "seconds", "extra memory": "extra_memory_mb"}
            )
            record["ratios"] = record.get("ratios") or {
                f"{name}: {first['what']} / {row['what']}": first[key] / row[key]
                for row in others
                for name, key in compared.items()
            }
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ZeroDivisionError,
        ) as error:
            raise CSKTError(
                f"run file {path} cannot be read ({error!r}); delete it and measure again."
            ) from error
    return records


def benchmark_frame(record: dict[str, Any], part: str = "rows") -> pd.DataFrame:
    """The ``rows`` of a benchmark's file, or the ``scaling`` of a throughput file, methods by their
    printed names."""
    frame = pd.DataFrame(record[part]).drop(columns="repeats", errors="ignore")
    return frame.assign(method=frame["method"].map(BENCHMARKED)) if "method" in frame else frame


def machine_of(record: dict[str, Any]) -> str:
    """On what a benchmark was run, in a few words: figures of two machines are never averaged."""
    machine = record["hardware"]
    native = " with bf16" if "matmul_bf16" in record.get("rates", ()) else ""
    threads = machine["threads"]
    return f"{machine['device']}{native}, {threads} thread{'s' * (threads != 1)}"


def step_table(record: dict[str, Any]) -> pd.DataFrame:
    """Time, memory and utilisation of every method's training step in a throughput file: one
    machine's."""
    steps = (
        benchmark_frame(record)
        .query("what == 'training step'")
        .sort_values(["precision", "seconds"])
    )
    return steps[["method", "precision"]].assign(
        **{
            "machine": machine_of(record),
            "trained parameters": [f"{int(count):,}" for count in steps["trained"]],
            "milliseconds": (1e3 * steps["seconds"]).map(_short),
            "pairs per second": (steps["batch"] / steps["seconds"]).map(_short),
            "minutes per epoch of CUHK-PEDES": (
                CUHK_PAIRS / steps["batch"] * steps["seconds"] / 60
            ).map(_short),
            "extra memory, MB": [
                "not known" if pd.isna(value) else _short(value)
                for value in steps["extra_memory_mb"]
            ],
            "share of the matmul rate": steps["utilisation"].map("{:.0%}".format),
        }
    )


def encoding_table(record: dict[str, Any]) -> pd.DataFrame:
    """Time per image, per caption and for a single query in a throughput file, and what feeding a
    step takes."""
    kinds = {
        "encode_image": "image, in a batch",
        "encode_text": "caption, in a batch",
        "one query": "one query alone",
        "loader": "loading and augmenting one image",
        "decode": "decoding one JPEG, once per data set",
    }
    rows = benchmark_frame(record)
    rows = rows[rows["what"].isin(kinds)].sort_values(
        "what", key=lambda column: column.map(list(kinds).index), kind="stable"
    )
    loads = {
        name: f"{value:.1%}"
        for name, value in record["ratios"].items()
        if name.startswith("loader / step")
    }
    share = [
        loads.get(f"loader / step with loader: {row.precision}", "") if row.what == "loader" else ""
        for row in rows.itertuples()
    ]
    return pd.DataFrame(
        {
            "what": rows["what"].map(kinds),
            "method": rows["method"],
            "precision": rows["precision"],
            "machine": machine_of(record),
            "milliseconds": (1e3 * rows["seconds"] / rows["batch"]).map(_short),
            "share of a training step": share,
        }
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def aims_table(records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """What was aimed at beside what was measured."""
    rows = []
    for file, name, trial, aim in (
        (file, name, *pair) for file, aims in AIMS.items() for name, pair in aims.items()
    ):
        value, (sign, bound) = records.get(file, {"ratios": {}})["ratios"].get(name), aim.split()
        reached = value is not None and (
            value >= float(bound) if sign == "≥" else value <= float(bound)
        )
        rows.append(
            {
                "run file": file,
                "comparison": name,
                "earlier trial": trial,
                "aim": aim,
                "measured": NOT_RUN if value is None else _short(value),
                "aim reached": "" if value is None else "yes" if reached else "no",
            }
        )
    return pd.DataFrame(rows)


def describe_benchmarks(records: dict[str, dict[str, Any]]) -> list[str]:
    """A line per expected run file: what was measured where, when, how long, at which commit; or
    that it was not."""
    lines = dict.fromkeys((*AIMS, *GALLERIES), NOT_RUN)
    for file, record in records.items():
        machine, made, commit = record["hardware"], record["settings"], str(record["commit"])[:12]
        what = f"{made['backbone']}, batch {made['batch']}, " if "batch" in made else ""
        what += f"{made['milvus'].replace('_', ' ')}, " if "milvus" in made else ""
        lines[file] = (
            f"{what}on {machine['device']} ({machine['threads']} threads), {record['duration_s']:.0f} s "
            f"from {record['started']}, torch {record['versions']['torch']}, commit {commit}"
            f"{' with local changes' if record['dirty'] else ''}"
        )
    return [f"{file}: {line}" for file, line in lines.items()]


def benchmark_findings(records: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence per throughput file and one on the aims, with the numbers of the run files."""
    table, lines = aims_table(records), []
    for file, record in records.items():
        ratios = record["ratios"]
        if set(_STEPS) <= ratios.keys():
            fast, memory, full = (ratios[name] for name in _STEPS)
            bf16 = (
                f", in bf16 {ratios[_HALF]:.2f} times"
                if _HALF in ratios
                else " (bf16 was not measured)"
            )
            lines.append(_STEP.format(file, fast, bf16, memory, full))
    measured = (table["aim reached"] != "").sum()
    missed = [
        f"{row.comparison} ({row.file})"
        for row in table.rename(columns={"run file": "file"})
        .query("`aim reached` == 'no'")
        .itertuples()
    ]
    return [
        *lines,
        f"Of {len(table)} aims {measured} were measured here and {measured - len(missed)} reached"
        + (f"; not reached: {'; '.join(missed)}." if len(missed) else "."),
    ]


def gallery_table(records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """What ``benchmarks/gallery.py`` measured, a row per place, index and number of vectors."""
    frames = [pd.DataFrame(records[name]["rows"]) for name in GALLERIES if name in records]
    if not frames:
        return pd.DataFrame({"gallery": [NOT_RUN]})
    rows = pd.concat(frames).sort_values(
        ["vectors", "where", "index"], kind="stable", ignore_index=True
    )
    return pd.DataFrame(
        {
            "vectors": rows["vectors"].map("{:,}".format),
            "where": rows["where"],
            "index": rows["index"],
            "numbers each": rows["dimension"],
            "inserted per second": rows["inserted_per_s"].map("{:,}".format),
            "then indexing, s": rows["building_s"].map(_short),
            "query, ms (95th percentile)": [
                f"{_short(row.query_ms)} ({_short(row.query_ms_95)})" for row in rows.itertuples()
            ],
            "filtered query, ms": rows["filtered_query_ms"].map(_short),
            "numpy, ms": rows["numpy_ms"].map(_short),
            "opening, s": rows["opening_s"].map(_short),
            "recall at 10, percent": rows["recall_at_10"].map("{:.1f}".format),
            "on disk, MB": [
                _short(row.disk_mb) if row.where == "embedded" else "" for row in rows.itertuples()
            ],
        }
    )


def gallery_plan(counts: Sequence[int], dimension: int = 512, node_gib: int = 64) -> pd.DataFrame:
    """On paper: memory and disk that ``counts`` vectors take with each index, and how many query
    nodes of ``node_gib`` GiB, three quarters of it for vectors, hold them once. Nothing in this
    table was measured."""
    rows = []
    for count in counts:
        for index, (memory, disk) in INDEX_BYTES.items():
            held = count * memory(dimension) / GIB
            rows.append(
                {
                    "vectors": f"{count:,}",
                    "index": index,
                    "memory, GiB": _short(held),
                    "disk, GiB": _short(count * disk(dimension) / GIB),
                    "query nodes": f"{math.ceil(held / (0.75 * node_gib)):,}",
                    "shards": f"{min(16, max(1, math.ceil(count / 1e8)))}",
                }
            )
    return pd.DataFrame(rows)


def published_efficiency(path: str | Path) -> pd.DataFrame:
    """Published figures of other code on other machines, with their sources; nothing of ours is in
    this table."""
    return pd.read_csv(path).rename(
        columns={
            "trainable_params_millions": "trained parameters, millions (published)",
            "memory_mb": "training memory, MB (published)",
        }
    )
