"""From run files and published figures to the tables of the book: nothing in a table is typed by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from .config import MINI, CSKTError, TrainConfig
from .experiments import grid_rows

MEASURES = ("R@1", "R@5", "R@10", "mAP")
LAYOUT_OF = {"CUHK-PEDES": "SynthPEDES-A", "ICFG-PEDES": "SynthPEDES-B", "RSTPReid": "SynthPEDES-C"}
SYNTHETIC = tuple(LAYOUT_OF.values())
METHOD_NAMES = {"zero-shot": "zero-shot", "full": "full fine-tuning", "cskt": "CSKT"}
NOT_RUN = "not run here"
_REQUIRED = ("dataset", "synthetic", "method", "seed", "config", "selection", "data_fingerprint", "commit",
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
            "selection": _selection(run), **{name: run["metrics"]["text_to_image"][name] for name in MEASURES},
            "mINP": run["metrics"]["text_to_image"]["mINP"], "zero-shot R@1": run["zero_shot"]["text_to_image"]["R@1"],
            "trained": run["trainable_parameters"], "total": run["total_parameters"], "seconds": run["duration_s"],
            "commit": run["commit"], "file": path.name,
        })
    columns = ["dataset", "synthetic", "method", "seed", "backbone", "epochs", "selection", *MEASURES, "mINP",
               "zero-shot R@1", "trained", "total", "seconds", "commit", "file"]
    return pd.DataFrame(rows, columns=columns)


def _selection(run: dict[str, Any]) -> str:
    """The split that the epoch was chosen on; a val split that is only called so is named as what it is."""
    stands_in = run["selection"] == "val" and any("no val split" in note for note in run.get("notes", ()))
    return "test (no val split)" if stands_in else run["selection"]


def _spread(values: pd.Series) -> str:
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row per data set, backbone, method, number of epochs and split that
    the epoch was chosen on; methods in the order of the story."""
    rows, bare = [], runs["method"] == "zero-shot"
    settings = [runs[name].astype(str).mask(bare, "—") for name in ("epochs", "selection")]  # a bare backbone has none
    for key, group in runs.groupby(["dataset", "backbone", "method", *settings]):
        dataset, backbone, method, epochs, selection = key
        rows.append({
            "dataset": dataset, "backbone": backbone, "method": METHOD_NAMES.get(method, method), "seeds": len(group),
            "epochs": epochs, "selected on": selection,
            **{name: _spread(group[name]) for name in MEASURES},
            "trained parameters": f"{int(group['trained'].iloc[0]):,}", "order": list(METHOD_NAMES).index(method)
            if method in METHOD_NAMES else len(METHOD_NAMES), "R@1 value": group["R@1"].mean(),
        })
    table = pd.DataFrame(rows)
    if not rows:
        return table
    return table.sort_values(["dataset", "backbone", "order"]).drop(columns="order").reset_index(drop=True)


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
        rows.append({"group": "runs of this code", "method": row["method"], "encoders": row["backbone"],
                     **{name: row[name] for name in MEASURES},
                     "source": f"run files, {row['seeds']} seeds, {row['epochs']} epochs, selected on "
                               f"{row['selected on']}"})
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
    base = table[table["method"] == "zero-shot"].groupby("backbone")["R@1 value"].first()
    table["R@1 / zero-shot"] = [f"{value / base[backbone]:.2f}" if backbone in base else ""
                                for backbone, value in zip(table["backbone"], table["R@1 value"], strict=True)]
    table.insert(0, "data", table.pop("dataset") + " (synthetic)")
    return table.drop(columns="R@1 value")


def overview_markdown(runs: pd.DataFrame) -> str:
    """R@1 and mAP of every method with cskt-mini on every SynthPEDES domain, as the README's markdown table."""
    table = summarise(_mini(runs))
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


def _mini(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["synthetic"].astype(bool) & (runs["backbone"] == MINI)]


def named_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The synthetic runs of cskt-mini with the methods' printed names, for the comparison figure."""
    runs = _mini(runs)
    return runs.assign(**{"method name": runs["method"].map(METHOD_NAMES)}).dropna(subset="method name")


def findings(runs: pd.DataFrame) -> list[str]:
    """One sentence per SynthPEDES domain, with numbers from the runs: what CSKT and full fine-tuning gain."""
    lines, runs = [], _mini(runs)
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


def read_grid(folder: str | Path, grid: str) -> pd.DataFrame:
    """One row per run file of a grid in ``folder``: its ``row`` (in the order of the grid), seed, measures and cost.
    ``data`` says which data set and backbone: rows of two kinds belong into two tables (see :func:`by_data`)."""
    rows = []
    for path in sorted((Path(folder) / grid.replace(" ", "-")).glob("*.json")):
        run = read_run_file(path)
        ranked = run["metrics"]["text_to_image"]
        rows.append({"row": run.get("row"), "seed": run["seed"], **{name: ranked[name] for name in MEASURES},
                     "interval": ranked["intervals"]["R@1"], "trained": run["trainable_parameters"],
                     "seconds": run["duration_s"], "dataset": run["dataset"],
                     "source": run.get("source", run["dataset"]), "synthetic": run["synthetic"],
                     "backbone": run["config"]["backbone"], "commit": run["commit"], "file": path.name})
    table = pd.DataFrame(rows, columns=["row", "seed", *MEASURES, "interval", "trained", "seconds", "dataset", "source",
                                        "synthetic", "backbone", "commit", "file"])
    orders = {backbone: list(grid_rows(grid, backbone)) for backbone in table["backbone"].unique()}
    place = [orders[backbone].index(row) if row in orders[backbone] else len(orders[backbone])
             for row, backbone in zip(table["row"], table["backbone"], strict=True)]
    data = table["dataset"] + table["synthetic"].map({True: " (synthetic)", False: ""}) + ", " + table["backbone"]
    table = table.assign(place=place, data=data).sort_values(["place", "seed"], kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def by_data(grid: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A grid's runs apart by data set and backbone, which no table may mix, each with a heading that says so."""
    return [(str(data), part.reset_index(drop=True)) for data, part in grid.groupby("data", sort=False)]


def difference(values: pd.Series, reference: pd.Series) -> tuple[float, float, float] | None:
    """Mean of ``values`` less that of ``reference`` and the ends of its 95 % interval over seeds (Welch's t); None
    where either has one seed only."""
    if min(len(values), len(reference)) < 2 or values.var() + reference.var() == 0:
        return None
    ends = ttest_ind(values, reference, equal_var=False).confidence_interval(0.95)
    return values.mean() - reference.mean(), ends.low, ends.high


def grid_table(runs: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """A grid's runs as a table for people; with ``reference``, a row, how every other one differs from it in R@1."""
    rows = []
    for label, group in runs.groupby("row", sort=False):
        low, high = (sum(ends[side] for ends in group["interval"]) / len(group) for side in (0, 1))
        line = {"variant": label, "seeds": len(group), "R@1": _spread(group["R@1"]),
                "95 % over people": f"{low:.1f} to {high:.1f}", "mAP": _spread(group["mAP"]),
                "trained parameters": f"{group['trained'].iloc[0]:,}",
                "seconds a run": f"{group['seconds'].mean():.0f}"}
        if reference:
            gap = difference(group["R@1"], runs.loc[runs["row"] == reference, "R@1"])
            line |= {f"R@1 against {reference}": "", "told apart": ""}
            if label != reference and gap is not None:
                line |= {f"R@1 against {reference}": f"{gap[0]:+.1f} ({gap[1]:+.1f} to {gap[2]:+.1f})",
                         "told apart": "yes" if gap[1] * gap[2] > 0 else "no"}
        rows.append(line)
    return pd.DataFrame(rows)


def grid_findings(runs: pd.DataFrame, reference: str) -> list[str]:
    """Which rows can be told apart from ``reference`` over seeds, and which cannot: two sentences with numbers."""
    table = grid_table(runs, reference)
    lines = []
    for answer, said in (("yes", "Told apart"), ("no", "Not told apart")):
        found = table[table["told apart"] == answer] if len(table) else table
        if len(found):
            each = zip(found["variant"], found[f"R@1 against {reference}"], strict=True)
            lines.append(f"{said} from {reference} in R@1: " + "; ".join(f"{name} {gap}" for name, gap in each) + ".")
    if not lines and len(runs):
        return [f"No row can be compared with {reference}: that takes two seeds of both."]
    return lines or [NOT_RUN]


def range_findings(runs: pd.DataFrame) -> str:
    """The best row of a grid, and which others its 95 % interval over people leaves behind, with numbers."""
    rows = runs.groupby("row", sort=False)
    means, ends = rows["R@1"].mean(), rows["interval"].agg(lambda each: np.mean(list(each), axis=0))
    best = means.idxmax()
    behind = [f"{row} ({value:.1f})" for row, value in means.items() if ends[row][1] < ends[best][0]]
    low, high = ends[best]
    return (f"Highest R@1: {means[best]:.1f} for {best} ({low:.1f} to {high:.1f} over people). Intervals that end "
            f"below: {', '.join(behind) or 'none; these runs tell no row from the best'}.")


def scarce_findings(runs: pd.DataFrame) -> str:
    """At which shares of the identities which of the two methods is ahead, with the difference over seeds."""
    parts, lines = runs["row"].str.rsplit(", ", n=1, expand=True), []
    for share in dict.fromkeys(parts[1]):
        ours, full = (runs.loc[(parts[0] == method) & (parts[1] == share), "R@1"] for method in (
            "CSKT", "full fine-tuning"))
        if len(ours) and len(full):
            gap = difference(ours, full)
            noise = f" ({gap[1]:+.1f} to {gap[2]:+.1f} over seeds)" if gap else ""
            lines.append(f"{share} {ours.mean() - full.mean():+.1f}{noise}")
    return f"CSKT less full fine-tuning in R@1, by share of the identities: {'; '.join(lines)}." if lines else NOT_RUN


def transfer_findings(runs: pd.DataFrame) -> list[str]:
    """How often a model trained elsewhere beats the bare backbone on the target: a sentence per method."""
    bare = runs[runs["row"] == "zero-shot"].groupby("dataset")["R@1"].mean()
    lines = []
    for row, part in runs[runs["row"] != "zero-shot"].groupby("row", sort=False):
        means = part.groupby(["source", "dataset"])["R@1"].mean()
        gains = {f"{source} to {target}": value - bare[target] for (source, target), value in means.items()
                 if target in bare}
        better = [f"{pair} {gain:+.1f}" for pair, gain in gains.items() if gain > 0]
        worse = [f"{pair} {gain:+.1f}" for pair, gain in gains.items() if gain <= 0]
        lines.append(f"{row}: above the bare backbone on the target in {len(better)} of {len(gains)} pairs "
                     f"({'; '.join(better) or 'none'}); not above: {'; '.join(worse) or 'none'}.")
    return lines or [NOT_RUN]


def transfer_table(runs: pd.DataFrame) -> pd.DataFrame:
    """From each source (rows) to each target, R@1 and mAP on the target's test split, without any training on it."""
    keys = ["source", "dataset", "backbone", "row"]
    rows = [{"trained on": f"{source} (synthetic)" if all(group["synthetic"]) else source, "tested on": target,
             "backbone": backbone, "model": row, "seeds": len(group), "R@1": _spread(group["R@1"]),
             "mAP": _spread(group["mAP"])} for (source, target, backbone, row), group in runs.groupby(keys, sort=False)]
    return pd.DataFrame(rows)


def grid_evidence(folder: str | Path) -> pd.DataFrame:
    """What stands behind each grid in ``folder``: run files, data, machine, precision, commit, hours of training (of
    transfer: of testing). A run that is a row of two grids counts in both."""
    rows = []
    for path in sorted(path for path in Path(folder).glob("*") if path.is_dir()):
        runs = [read_run_file(file) for file in sorted(path.glob("*.json"))]
        machines = {f"{run['hardware']['device']}, {run['hardware']['threads']} threads" for run in runs}
        facts = {"data": {run["dataset"] for run in runs}, "machine": machines,
                 "precision": {run["precision"] for run in runs}, "commit": {str(run["commit"])[:10] for run in runs}}
        rows.append({"grid": path.name.replace("-", " "), "run files": len(runs),
                     **{name: "; ".join(sorted(values)) for name, values in facts.items()},
                     "hours": f"{sum(run['duration_s'] for run in runs) / 3600:.1f}"})
    return pd.DataFrame(rows, columns=["grid", "run files", "data", "machine", "precision", "commit", "hours"])


def published_transfer(path: str | Path) -> pd.DataFrame:
    """Published figures of domain transfer between the real benchmarks, with their sources; nothing here is ours."""
    names = {"source_dataset": "trained on", "target_dataset": "tested on"}
    table = pd.read_csv(path).rename(columns=names | dict(zip(("r1", "r5", "r10", "map"), MEASURES, strict=True)))
    return table.assign(**{name: table[name].map(lambda v: "" if pd.isna(v) else f"{v:.2f}") for name in MEASURES})
