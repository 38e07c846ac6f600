"""From run files and published figures to the tables of the book: nothing in a table is typed by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from .config import CSKTError, TrainConfig

MEASURES = ("R@1", "R@5", "R@10", "mAP")
LAYOUT_OF = {"CUHK-PEDES": "SynthPEDES-A", "ICFG-PEDES": "SynthPEDES-B", "RSTPReid": "SynthPEDES-C"}
SYNTHETIC = tuple(LAYOUT_OF.values())
METHOD_NAMES = {"zero-shot": "zero-shot", "full": "full fine-tuning", "cskt": "CSKT"}
NOT_RUN = "not run here"
_REQUIRED = ("dataset", "synthetic", "method", "seed", "config", "selection_split", "data_fingerprint", "commit",
             "hardware", "duration_s", "trainable_parameters", "total_parameters", "metrics", "zero_shot")


def check_parameters(namespace: dict[str, Any], allowed: Iterable[str]) -> None:
    """Refuse a notebook parameter that the notebook does not know; papermill alone would only log it.

    Args:
        namespace: the notebook's ``globals()``, before it defines anything else of its own.
        allowed: the names in the cell tagged ``parameters``.
    """
    plain = (bool, int, float, str, list, tuple, dict, type(None))
    ours = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    unknown = sorted(name for name, value in namespace.items()
                     if not name.startswith("_") and name not in ours and type(value) in plain and name not in allowed)
    if unknown:
        raise CSKTError(f"unknown parameter {', '.join(unknown)}; this notebook takes {', '.join(sorted(allowed))}.")


def enter_project() -> Path:
    """Make the folder that holds ``notebooks/`` the working directory, from it or anywhere below; returns it."""
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)
    os.chdir(root)
    return root


def read_run_file(path: str | Path) -> dict[str, Any]:
    """One run's ``metrics.json``; a :class:`CSKTError` names the file and what it lacks."""
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise CSKTError(f"run file {path} cannot be read ({error}); delete it and run again.") from error
    missing = [name for name in _REQUIRED if not isinstance(record, dict) or name not in record]
    if missing:
        raise CSKTError(f"run file {path} lacks {', '.join(missing)}; delete it and run again.")
    return record


def run_table(files: Iterable[str | Path]) -> pd.DataFrame:
    """One row per run file: what was run and its text-to-image measures in percent."""
    rows = []
    for path in sorted(map(Path, files)):
        run = read_run_file(path)
        rows.append({
            "dataset": run["dataset"], "synthetic": run["synthetic"], "method": run["method"], "seed": run["seed"],
            "backbone": run["config"]["backbone"], "epochs": run["config"]["epochs"],
            "selection": run["selection_split"], **{name: run["metrics"]["text_to_image"][name] for name in MEASURES},
            "mINP": run["metrics"]["text_to_image"]["mINP"], "zero-shot R@1": run["zero_shot"]["text_to_image"]["R@1"],
            "trained": run["trainable_parameters"], "total": run["total_parameters"], "seconds": run["duration_s"],
            "commit": run["commit"], "file": path.name,
        })
    columns = ["dataset", "synthetic", "method", "seed", "backbone", "epochs", "selection", *MEASURES, "mINP",
               "zero-shot R@1", "trained", "total", "seconds", "commit", "file"]
    return pd.DataFrame(rows, columns=columns)


def _spread(values: pd.Series) -> str:
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row per (dataset, method), methods in the order of the story."""
    rows = []
    for (dataset, method), group in runs.groupby(["dataset", "method"]):
        rows.append({
            "dataset": dataset, "method": METHOD_NAMES.get(method, method), "seeds": len(group),
            "selected on": "—" if method == "zero-shot" else ", ".join(sorted(set(group["selection"]))),
            **{name: _spread(group[name]) for name in MEASURES},
            "trained parameters": f"{int(group['trained'].iloc[0]):,}", "order": list(METHOD_NAMES).index(method)
            if method in METHOD_NAMES else len(METHOD_NAMES), "R@1 value": group["R@1"].mean(),
        })
    table = pd.DataFrame(rows)
    return table.sort_values(["dataset", "order"]).drop(columns="order").reset_index(drop=True) if rows else table


def benchmark_table(dataset: str, literature: str | Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Published figures of a real benchmark, grouped as published, then our runs on it or "not run here".

    Args:
        dataset: ``"CUHK-PEDES"``, ``"ICFG-PEDES"`` or ``"RSTPReid"``.
        literature: csv with the columns of ``book/data/literature.csv``.
        runs: from :func:`run_table`; only runs on ``dataset`` itself count, never synthetic ones.
    """
    published = pd.read_csv(literature)
    published = published[published["dataset"] == dataset].sort_values("r1", kind="stable")
    order = {group: rank for rank, group in enumerate(pd.unique(pd.read_csv(literature)["group"]))}
    published = published.assign(rank=published["group"].map(order)).sort_values("rank", kind="stable")
    rows = [{"group": row.group, "method": f"{row.method} ({row.venue})",
             "encoders": f"{row.image_encoder} / {row.text_encoder}",
             **{name: "" if pd.isna(value) else f"{value:.2f}"
                for name, value in zip(MEASURES, (row.r1, row.r5, row.r10, row.map), strict=True)},
             "source": row.source} for row in published.itertuples()]
    ours = summarise(runs[(runs["dataset"] == dataset) & ~runs["synthetic"].astype(bool)])
    for row in ours.to_dict("records"):
        rows.append({"group": "runs of this code", "method": row["method"], "encoders": "",
                     **{name: row[name] for name in MEASURES},
                     "source": f"run files, {row['seeds']} seeds, selected on {row['selected on']}"})
    if ours.empty:
        rows.append({"group": "runs of this code", "method": "CSKT", "encoders": "ViT-B/16 / Xformer",
                     **dict.fromkeys(MEASURES, NOT_RUN), "source": "needs the data set, CLIP's weights and a GPU"})
    return pd.DataFrame(rows)


def synthetic_table(dataset: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Our runs on the SynthPEDES domain written in the layout of ``dataset``; every row says that it is synthetic."""
    domain = LAYOUT_OF[dataset]
    table = summarise(runs[runs["dataset"] == domain])
    if table.empty:
        return pd.DataFrame([{"data": f"{domain} (synthetic)", "method": "CSKT", **dict.fromkeys(MEASURES, NOT_RUN)}])
    base = table.loc[table["method"] == "zero-shot", "R@1 value"]
    table["R@1 / zero-shot"] = [f"{value / base.iloc[0]:.2f}" if len(base) else "" for value in table["R@1 value"]]
    table.insert(0, "data", table.pop("dataset") + " (synthetic)")
    return table.drop(columns="R@1 value")


def overview_markdown(runs: pd.DataFrame) -> str:
    """R@1 and mAP of every method on every SynthPEDES domain, as the README's markdown table."""
    table = summarise(runs[runs["synthetic"].astype(bool)])
    lines = ["| synthetic data | method | seeds | R@1 | mAP | trained parameters |", "|---|---|---|---|---|---|"]
    lines += [f"| {row['dataset']} | {row['method']} | {row['seeds']} | {row['R@1']} | {row['mAP']} | "
              f"{row['trained parameters']} |" for row in table.to_dict("records")]
    return "\n".join(lines)


def show_table(table: pd.DataFrame) -> Any:
    """A table for a page: no index column, text to the left, a group named once, numbers in one line."""
    if "group" in table:
        table = table.assign(group=table["group"].mask(table["group"].eq(table["group"].shift()), ""))
    figures = [name for name in table if name in (*MEASURES, "dataset", "data", "method", "seed", "commit")]
    return (table.style.hide(axis="index").set_properties(**{"text-align": "left"})
            .set_properties(subset=figures, **{"white-space": "nowrap"}))


def setting_table(config: TrainConfig) -> pd.DataFrame:
    """Every setting of a run beside the paper's; the last column marks where they differ."""
    def flat(values: dict[str, Any]) -> dict[str, Any]:
        method = {f"cskt.{name}": value for name, value in values.pop("cskt").items()}
        return {**values, **method}

    ours, paper = flat(config.to_dict()), flat(TrainConfig.paper(dataset=config.dataset).to_dict())
    rows = [(name, str(ours[name]), str(paper[name]), "" if ours[name] == paper[name] else "differs") for name in ours
            if name not in ("data_root", "output")]
    return pd.DataFrame(rows, columns=["setting", "this run", "paper", ""]).set_index("setting")


def gain_table(record: dict[str, Any]) -> pd.DataFrame:
    """Zero-shot and trained measures of one run on test, both directions, in percent."""
    rows = {}
    for direction, label in (("text_to_image", "text → image"), ("image_to_text", "image → text")):
        trained = METHOD_NAMES.get(record["method"], record["method"])
        for key, name in (("zero_shot", "zero-shot"), ("metrics", trained)):
            rows[label, name] = {measure: f"{record[key][direction][measure]:.2f}" for measure in (*MEASURES, "mINP")}
    return pd.DataFrame(rows).T


def describe_run(record: dict[str, Any]) -> str:
    """One line: data, backbone, seed, precision, hardware, duration, fingerprint, commit."""
    machine = record["hardware"]
    return (f"{'synthetic' if record['synthetic'] else 'real'} data {record['dataset']}, "
            f"{record['config']['backbone']}, {record['method']}, seed {record['seed']}, {record['precision']} on "
            f"{machine['device']} ({machine['threads']} threads), {record['duration_s']:.0f} s, data fingerprint "
            f"{record['data_fingerprint'][:12]}, commit {str(record['commit'])[:12]}")


def describe_gain(record: dict[str, Any]) -> str:
    """One line: R@1 before and after, and what was trained for it."""
    before, after = (record[key]["text_to_image"]["R@1"] for key in ("zero_shot", "metrics"))
    trained, total = record["trainable_parameters"], record["total_parameters"]
    return (f"R@1 {before:.2f} -> {after:.2f} ({after / before:.2f} times) by training {trained:,} of {total:,} "
            f"parameters ({100 * trained / total:.1f}%)")


def named_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The synthetic runs with the methods' printed names, for the comparison figure."""
    runs = runs[runs["synthetic"].astype(bool)]
    return runs.assign(**{"method name": runs["method"].map(METHOD_NAMES)}).dropna(subset="method name")


def findings(runs: pd.DataFrame) -> list[str]:
    """One sentence per SynthPEDES domain, with numbers from the runs: what CSKT and full fine-tuning gain."""
    lines = []
    for domain in SYNTHETIC:
        groups = {method: group["R@1"] for method, group in runs[runs["dataset"] == domain].groupby("method")}
        if {"zero-shot", "cskt"} <= groups.keys():
            before, after = groups["zero-shot"].mean(), groups["cskt"]
            line = (f"{domain} (synthetic): CSKT reaches R@1 {after.mean():.1f} (mean of {len(after)} seeds), "
                    f"{after.mean() / before:.2f} times the zero-shot backbone's {before:.1f}")
            if "full" in groups:
                line += f"; full fine-tuning reaches {groups['full'].mean():.1f} (seeds: {len(groups['full'])})"
            lines.append(line + ".")
    return lines or ["No synthetic runs were found."]


def evidence_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One line per run file: what, how long, from which commit."""
    table = runs[["file", "dataset", "method", "seed", "epochs", "selection", "R@1", "mAP", "trained", "seconds",
                  "commit"]].copy()
    for name, form in (("R@1", "{:.2f}"), ("mAP", "{:.2f}"), ("seconds", "{:.0f}"), ("trained", "{:,}")):
        table[name] = table[name].map(form.format)
    return table.assign(commit=table["commit"].astype(str).str[:10])
