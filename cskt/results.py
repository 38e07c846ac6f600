"""From run files and published figures to the tables of the book: nothing in a table is typed by
hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from cskt.errors import CSKTError

from .config import MINI, TrainConfig
from .experiments import grid_rows
from .settings import (
    SETTING,
    device_kind,
    device_name,
    distinguishing,
    hide_shared,
    require_one_setting,
    setting_line,
    setting_of,
    setting_suffix,
)

MEASURES = ("R@1", "R@5", "R@10", "mAP")
LAYOUT_OF = {"CUHK-PEDES": "SynthPEDES-A", "ICFG-PEDES": "SynthPEDES-B", "RSTPReid": "SynthPEDES-C"}
SYNTHETIC = tuple(LAYOUT_OF.values())
METHOD_NAMES = {"zero-shot": "zero-shot", "full": "full fine-tuning", "cskt": "CSKT"}
NOT_RUN = "not run here"
_REQUIRED = (
    "dataset",
    "synthetic",
    "method",
    "seed",
    "config",
    "selection",
    "selected",
    "data_version",
    "data_fingerprint",
    "precision",
    "commit",
    "hardware",
    "duration_s",
    "trainable_parameters",
    "total_parameters",
    "metrics",
    "zero_shot",
)
# Whose R@1 on test a column holds: that of the epoch which ... would keep.
CHOSEN = {"val": "chosen on val", "test": "chosen on test", "last": "last epoch"}


def check_parameters(namespace: dict[str, Any], allowed: Iterable[str]) -> None:
    """Refuse a notebook parameter that the notebook does not know; papermill alone would only log
    it.

    Args:
        namespace: the notebook's ``globals()``, before it defines anything else of its own.
        allowed: the names in the cell tagged ``parameters``.
    """
    plain = (bool, int, float, str, list, tuple, dict, type(None))
    ours = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    unknown = sorted(
        name
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in ours
        and type(value) in plain
        and name not in allowed
    )
    if unknown:
        raise CSKTError(
            f"unknown parameter {', '.join(unknown)}; this notebook takes {', '.join(sorted(allowed))}."
        )


def enter_project() -> Path:
    """Make the folder that holds ``notebooks/`` the working directory, from it or anywhere below;
    returns it."""
    here = Path.cwd()
    root = next(
        (folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here
    )
    os.chdir(root)
    return root


def read_run_file(path: str | Path) -> dict[str, Any]:
    """One run's ``metrics.json``; a :class:`CSKTError` names the file and what it lacks."""
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise CSKTError(
            f"run file {path} cannot be read ({error}); delete it and run again."
        ) from error
    missing = [name for name in _REQUIRED if not isinstance(record, dict) or name not in record]
    if missing:
        raise CSKTError(f"run file {path} lacks {', '.join(missing)}; delete it and run again.")
    return record


def run_table(files: Iterable[str | Path]) -> pd.DataFrame:
    """One row per run file: what was run, its text-to-image measures in percent and, in the columns
    of :data:`CHOSEN`, R@1 on test of the epoch that val would choose, that test would choose, and
    of the last one (NaN: none)."""
    rows = []
    for path in sorted(map(Path, files)):
        run = read_run_file(path)
        rows.append(
            {
                "dataset": run["dataset"],
                "synthetic": run["synthetic"],
                "method": run["method"],
                "seed": run["seed"],
                "backbone": run["config"]["backbone"],
                "epochs": run["config"]["epochs"],
                "selection": _selection(run),
                **setting_of(run)._asdict(),
                **{name: run["metrics"]["text_to_image"][name] for name in MEASURES},
                "mINP": run["metrics"]["text_to_image"]["mINP"],
                "zero-shot R@1": run["zero_shot"]["text_to_image"]["R@1"],
                **_selected_figures(run),
                "trained": run["trainable_parameters"],
                "total": run["total_parameters"],
                "seconds": run["duration_s"],
                "commit": run["commit"],
                "file": path.name,
            }
        )
    columns = [
        "dataset",
        "synthetic",
        "method",
        "seed",
        "backbone",
        "epochs",
        "selection",
        *SETTING,
        *MEASURES,
        "mINP",
        "zero-shot R@1",
        *CHOSEN.values(),
        "val epoch",
        "trained",
        "total",
        "seconds",
        "commit",
        "file",
    ]
    return pd.DataFrame(rows, columns=columns)


def _has_val(run: dict[str, Any]) -> bool:
    """Whether the data set has a val split, rather than one called so that is test."""
    return not any("no val split" in note for note in run.get("notes", ()))


def _selection(run: dict[str, Any]) -> str:
    """Where the epoch was chosen; a val split that is only called so is named as what it is."""
    stands_in = run["selection"] == "val" and not _has_val(run)
    return "test (no val split)" if stands_in else run["selection"]


def _selected_figures(run: dict[str, Any]) -> dict[str, float]:
    """R@1 on test under each way to choose the epoch, and the epoch that val chose; without an
    entry where there is nothing to choose, or no val split to choose it on."""
    figures: dict[str, float] = {}
    if run["method"] == "zero-shot" or not run["selected"]:
        return figures
    for name, column in CHOSEN.items():
        if name == "val" and not _has_val(run):
            continue
        choice = run["selected"][name]
        figures[column] = choice["metrics"]["text_to_image"]["R@1"]
        if name == "val":
            figures["val epoch"] = choice["epoch"]
    return figures


def spread(values: pd.Series, sign: str = "") -> str:
    """Mean and, of several, standard deviation; ``sign="+"`` for differences."""
    return f"{values.mean():{sign}.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row per data set, backbone, method, number of
    epochs, way to choose the epoch and setting (:func:`setting_of`, named in a column where there
    are several); methods in the order of the story."""
    table = _summarise(runs)
    return table if table.empty else hide_shared(table, runs)


def _summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """:func:`summarise` with the columns of the setting in every case."""
    rows, bare = [], runs["method"] == "zero-shot"
    settings = [
        runs[name].astype(str).mask(bare, "—") for name in ("epochs", "selection")
    ]  # a bare backbone has none
    for key, group in runs.groupby(["dataset", "backbone", "method", *settings, *SETTING]):
        dataset, backbone, method, epochs, selection, setting, inputs = key
        rows.append(
            {
                "dataset": dataset,
                "backbone": backbone,
                "method": METHOD_NAMES.get(method, method),
                "seeds": len(group),
                "epochs": epochs,
                "selected on": selection,
                "setting": setting,
                "inputs": inputs,
                **{name: spread(group[name]) for name in MEASURES},
                "trained parameters": f"{int(group['trained'].iloc[0]):,}",
                "order": list(METHOD_NAMES).index(method)
                if method in METHOD_NAMES
                else len(METHOD_NAMES),
                "R@1 value": group["R@1"].mean(),
            }
        )
    table = pd.DataFrame(rows)
    if not rows:
        return table
    table = table.sort_values(["dataset", "backbone", *SETTING, "order"])
    return table.drop(columns="order").reset_index(drop=True)


def benchmark_table(dataset: str, literature: str | Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Published figures of a real benchmark, grouped as published, then our runs on it or "not run
    here".

    Args:
        dataset: ``"CUHK-PEDES"``, ``"ICFG-PEDES"`` or ``"RSTPReid"``.
        literature: csv with the columns of ``book/data/literature.csv``.
        runs: from :func:`run_table`; only runs on ``dataset`` itself count, never synthetic ones.
    """
    published = pd.read_csv(literature)
    published = published[published["dataset"] == dataset].sort_values("r1", kind="stable")
    order = {group: rank for rank, group in enumerate(pd.unique(pd.read_csv(literature)["group"]))}
    published = published.assign(rank=published["group"].map(order)).sort_values(
        "rank", kind="stable"
    )
    rows = [
        {
            "group": row.group,
            "method": f"{row.method} ({row.venue})",
            "encoders": f"{row.image_encoder} / {row.text_encoder}",
            **{
                name: "" if pd.isna(value) else f"{value:.2f}"
                for name, value in zip(MEASURES, (row.r1, row.r5, row.r10, row.map), strict=True)
            },
            "source": row.source,
        }
        for row in published.itertuples()
    ]
    ours = _summarise(runs[(runs["dataset"] == dataset) & ~runs["synthetic"].astype(bool)])
    for row in ours.to_dict("records"):
        rows.append(
            {
                "group": "runs of this code",
                "method": row["method"],
                "encoders": row["backbone"],
                **{name: row[name] for name in MEASURES},
                "source": f"run files, {row['seeds']} seeds, {row['epochs']} epochs, selected on "
                f"{row['selected on']}; {row['setting']}, {row['inputs']}",
            }
        )
    if ours.empty:
        rows.append(
            {
                "group": "runs of this code",
                "method": "CSKT",
                "encoders": "ViT-B/16 / Xformer",
                **dict.fromkeys(MEASURES, NOT_RUN),
                "source": "needs the data set, CLIP's weights and a GPU",
            }
        )
    return pd.DataFrame(rows)


def synthetic_table(dataset: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Our runs on the SynthPEDES domain written in the layout of ``dataset``; every row says that
    it is synthetic."""
    domain = LAYOUT_OF[dataset]
    runs = runs[runs["dataset"] == domain]
    table = _summarise(runs)
    if table.empty:
        return pd.DataFrame(
            [
                {
                    "data": f"{domain} (synthetic)",
                    "method": "CSKT",
                    **dict.fromkeys(MEASURES, NOT_RUN),
                }
            ]
        )
    # A gain is one over the same backbone under the same numerics, on the same data.
    alike = ["backbone", *SETTING]
    base = table[table["method"] == "zero-shot"].set_index(alike)["R@1 value"].to_dict()
    gains = []
    for row in table.to_dict("records"):
        before = base.get(tuple(row[name] for name in alike))
        gains.append("" if before is None else f"{row['R@1 value'] / before:.2f}")
    table["R@1 / zero-shot"] = gains
    table = hide_shared(table, runs)
    table.insert(0, "data", table.pop("dataset") + " (synthetic)")
    return table.drop(columns="R@1 value")


def overview_markdown(runs: pd.DataFrame) -> str:
    """R@1 and mAP of every method with cskt-mini on every SynthPEDES domain, as the README's
    markdown table, and below it the line that says how the runs were made."""
    runs = _mini(runs)
    names = [
        "dataset",
        "method",
        *distinguishing(runs),
        "seeds",
        "R@1",
        "mAP",
        "trained parameters",
    ]
    titles = ["synthetic data", *names[1:]]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(names)]
    for row in _summarise(runs).to_dict("records"):
        cells = [str(row[name]) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", setting_line(runs)])


def show_table(table: pd.DataFrame) -> Any:
    """A table for a page: no index column, text to the left, a group named once, numbers in one
    line."""
    if "group" in table:
        table = table.assign(
            group=table["group"].mask(table["group"].eq(table["group"].shift()), "")
        )
    figures = [
        name for name in table if name in (*MEASURES, "dataset", "data", "method", "seed", "commit")
    ]
    return (
        table.style.hide(axis="index")
        .set_properties(**{"text-align": "left"})
        .set_properties(subset=figures, **{"white-space": "nowrap"})
    )


def setting_table(config: TrainConfig) -> pd.DataFrame:
    """Every setting of a run beside the paper's; the last column marks where they differ."""

    def flat(values: dict[str, Any]) -> dict[str, Any]:
        method = {f"cskt.{name}": value for name, value in values.pop("cskt").items()}
        return {**values, **method}

    ours, paper = flat(config.to_dict()), flat(TrainConfig.paper(dataset=config.dataset).to_dict())
    rows = [
        (name, str(ours[name]), str(paper[name]), "" if ours[name] == paper[name] else "differs")
        for name in ours
        if name not in ("data_root", "output")
    ]
    return pd.DataFrame(rows, columns=["setting", "this run", "paper", ""]).set_index("setting")


def gain_table(record: dict[str, Any]) -> pd.DataFrame:
    """Zero-shot and trained measures of one run on test, both directions, in percent."""
    rows = {}
    for direction, label in (("text_to_image", "text → image"), ("image_to_text", "image → text")):
        trained = METHOD_NAMES.get(record["method"], record["method"])
        for key, name in (("zero_shot", "zero-shot"), ("metrics", trained)):
            rows[label, name] = {
                measure: f"{record[key][direction][measure]:.2f}" for measure in (*MEASURES, "mINP")
            }
    return pd.DataFrame(rows).T


def describe_run(record: dict[str, Any]) -> str:
    """One line: data, backbone, seed, precision, hardware, duration, fingerprint, commit."""
    machine = record["hardware"]
    return (
        f"{'synthetic' if record['synthetic'] else 'real'} data {record['dataset']}, "
        f"{record['config']['backbone']}, {record['method']}, seed {record['seed']}, {record['precision']} on "
        f"{device_name(record)} ({machine['threads']} threads), {record['duration_s']:.0f} s, data fingerprint "
        f"{record['data_fingerprint'][:12]}, commit {str(record['commit'])[:12]}"
    )


def describe_gain(record: dict[str, Any]) -> str:
    """One line: R@1 before and after, and what was trained for it."""
    before, after = (record[key]["text_to_image"]["R@1"] for key in ("zero_shot", "metrics"))
    trained, total = record["trainable_parameters"], record["total_parameters"]
    return (
        f"R@1 {before:.2f} -> {after:.2f} ({after / before:.2f} times) by training {trained:,} of {total:,} "
        f"parameters ({100 * trained / total:.1f}%)"
    )


def _mini(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["synthetic"].astype(bool) & (runs["backbone"] == MINI)]


def named_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The synthetic runs of cskt-mini with the methods' printed names, for the comparison figure;
    where they differ in setting, ``dataset`` names it, so that no bar is a mean over two."""
    runs = _mini(runs)
    names = runs["method"].map(METHOD_NAMES)
    apart = runs["dataset"] + setting_suffix(runs)
    return runs.assign(**{"method name": names, "dataset": apart}).dropna(subset="method name")


def findings(runs: pd.DataFrame) -> list[str]:
    """One sentence per SynthPEDES domain, with numbers from the runs: what CSKT and full
    fine-tuning gain."""
    lines, runs = [], _mini(runs)
    labels = runs["dataset"] + " (synthetic" + setting_suffix(runs) + ")"
    for label, part in runs.groupby(labels):
        groups = {method: group["R@1"] for method, group in part.groupby("method")}
        if {"zero-shot", "cskt"} <= groups.keys():
            before, after = groups["zero-shot"].mean(), groups["cskt"]
            line = (
                f"{label}: CSKT reaches R@1 {after.mean():.1f} (mean of {len(after)} seeds), "
                f"{after.mean() / before:.2f} times the zero-shot backbone's {before:.1f}"
            )
            if "full" in groups:
                full = groups["full"].mean()
                line += f"; full fine-tuning reaches {full:.1f} (seeds: {len(groups['full'])})"
                if full > before:
                    share = 100 * (after.mean() - before) / (full - before)
                    line += (
                        f", so CSKT gives {share:.0f}% of its gain with {_trained_share(part)} of the "
                        "parameters trained"
                    )
            lines.append(line + ".")
    return lines or ["No synthetic runs were found."]


def _trained_share(runs: pd.DataFrame) -> str:
    """Which share of all parameters CSKT trains in these runs."""
    ours = runs[runs["method"] == "cskt"].iloc[0]
    return f"{100 * ours['trained'] / ours['total']:.1f}%"


def evidence_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One line per run file: what, how long, from which commit."""
    apart = distinguishing(runs)
    table = runs[
        [
            "file",
            "dataset",
            "method",
            "seed",
            "epochs",
            "selection",
            *apart,
            "R@1",
            "mAP",
            "trained",
            "seconds",
            "commit",
        ]
    ].copy()
    for name, form in (
        ("R@1", "{:.2f}"),
        ("mAP", "{:.2f}"),
        ("seconds", "{:.0f}"),
        ("trained", "{:,}"),
    ):
        table[name] = table[name].map(form.format)
    return table.assign(commit=table["commit"].astype(str).str[:10])


_GRID_COLUMNS = [
    "row",
    "seed",
    "method",
    "learning rate",
    "warm-up",
    *MEASURES,
    "interval",
    "val R@1",
    "val mAP",
    "val R@1, last epoch",
    "history",
    "trained",
    "seconds",
    "dataset",
    "source",
    "source data",
    "synthetic",
    "backbone",
    "selection",
    *SETTING,
    "commit",
    "file",
]


def _grid_row(run: dict[str, Any], file: str) -> dict[str, Any]:
    """A run's line of :func:`read_grid`; what its record does not hold is NaN, a history that is
    not there empty."""
    ranked, config = run["metrics"]["text_to_image"], run["config"]
    on_val = (run.get("val_metrics") or {}).get("text_to_image", {})
    history = run.get("history") or []
    last = history[-1] if history else {}
    return {
        "row": run.get("row"),
        "seed": run["seed"],
        "method": run["method"],
        "learning rate": config.get("learning_rate"),
        "warm-up": config.get("warmup_epochs"),
        **{name: ranked[name] for name in MEASURES},
        "interval": ranked["intervals"]["R@1"],
        "val R@1": on_val.get("R@1", np.nan),
        "val mAP": on_val.get("mAP", np.nan),
        "val R@1, last epoch": last.get("val R@1", np.nan),
        "history": history,
        "trained": run["trainable_parameters"],
        "seconds": run["duration_s"],
        "dataset": run["dataset"],
        "source": run.get("source", run["dataset"]),
        "source data": run.get("source_fingerprint", "")[:8],
        "synthetic": run["synthetic"],
        "backbone": config["backbone"],
        "selection": _selection(run),
        **setting_of(run)._asdict(),
        "commit": run["commit"],
        "file": file,
    }


def read_grid(folder: str | Path, grid: str) -> pd.DataFrame:
    """One row per run file of a grid in ``folder``: its ``row`` (in the order of the grid), seed,
    measures and cost. ``data`` says which data set and backbone: rows of two kinds belong into two
    tables (see :func:`by_data`)."""
    paths = sorted((Path(folder) / grid.replace(" ", "-")).glob("*.json"))
    rows = [_grid_row(read_run_file(path), path.name) for path in paths]
    table = pd.DataFrame(rows, columns=_GRID_COLUMNS)
    orders = {backbone: list(grid_rows(grid, backbone)) for backbone in table["backbone"].unique()}
    place = [
        orders[backbone].index(row) if row in orders[backbone] else len(orders[backbone])
        for row, backbone in zip(table["row"], table["backbone"], strict=True)
    ]
    data = (
        table["dataset"]
        + table["synthetic"].map({True: " (synthetic)", False: ""})
        + ", "
        + table["backbone"]
    )
    table = table.assign(place=place, data=data).sort_values(["place", "seed"], kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def by_data(grid: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A grid's runs apart by data set, backbone, way to choose the epoch and setting, which no
    table may mix, each with a heading that says so."""
    parts, keys = [], ["data", "selection", *SETTING]
    for (data, selection, setting, inputs), part in grid.groupby(keys, sort=False):
        chosen = "last epoch" if selection == "last" else f"epoch chosen on {selection}"
        parts.append((f"{data}; {chosen}; {setting}; {inputs}", part.reset_index(drop=True)))
    return parts


def difference(runs: pd.DataFrame, reference: pd.DataFrame) -> tuple[float, float, float] | None:
    """Mean R@1 of ``runs`` less that of ``reference``, and the ends of its 95 % interval over seeds
    (Welch's t); None where either has one seed only. :class:`CSKTError` where they differ in
    setting."""
    require_one_setting(pd.concat([runs[SETTING], reference[SETTING]]))
    values, others = runs["R@1"], reference["R@1"]
    if min(len(values), len(others)) < 2 or values.var() + others.var() == 0:
        return None
    ends = ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    return values.mean() - others.mean(), ends.low, ends.high


def grid_table(runs: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """A grid's runs, of one setting, as a table for people; with ``reference``, a row, how every
    other one differs from it in R@1."""
    require_one_setting(runs)
    rows = []
    for label, group in runs.groupby("row", sort=False):
        low, high = (sum(ends[side] for ends in group["interval"]) / len(group) for side in (0, 1))
        line = {
            "variant": label,
            "seeds": len(group),
            "R@1": spread(group["R@1"]),
            "95 % over people": f"{low:.1f} to {high:.1f}",
            "mAP": spread(group["mAP"]),
            "trained parameters": f"{group['trained'].iloc[0]:,}",
            "seconds a run": f"{group['seconds'].mean():.0f}",
        }
        if reference:
            gap = difference(group, runs[runs["row"] == reference])
            line |= {f"R@1 against {reference}": "", "told apart": ""}
            if label != reference and gap is not None:
                line |= {
                    f"R@1 against {reference}": f"{gap[0]:+.1f} ({gap[1]:+.1f} to {gap[2]:+.1f})",
                    "told apart": "yes" if gap[1] * gap[2] > 0 else "no",
                }
        rows.append(line)
    return pd.DataFrame(rows)


def grid_findings(runs: pd.DataFrame, reference: str) -> list[str]:
    """Which rows can be told apart from ``reference`` over seeds, and which cannot: two sentences
    with numbers."""
    table = grid_table(runs, reference)
    lines = []
    for answer, said in (("yes", "Told apart"), ("no", "Not told apart")):
        found = table[table["told apart"] == answer] if len(table) else table
        if len(found):
            each = zip(found["variant"], found[f"R@1 against {reference}"], strict=True)
            lines.append(
                f"{said} from {reference} in R@1: "
                + "; ".join(f"{name} {gap}" for name, gap in each)
                + "."
            )
    if not lines and len(runs):
        return [f"No row can be compared with {reference}: that takes two seeds of both."]
    return lines or [NOT_RUN]


def range_findings(runs: pd.DataFrame) -> str:
    """The best row of a grid, and which others its 95 % interval over people leaves behind, with
    numbers."""
    require_one_setting(runs)
    rows = runs.groupby("row", sort=False)
    means, ends = rows["R@1"].mean(), rows["interval"].agg(lambda each: np.mean(list(each), axis=0))
    best = means.idxmax()
    behind = [
        f"{row} ({value:.1f})" for row, value in means.items() if ends[row][1] < ends[best][0]
    ]
    low, high = ends[best]
    return (
        f"Highest R@1: {means[best]:.1f} for {best} ({low:.1f} to {high:.1f} over people). Intervals that end "
        f"below: {', '.join(behind) or 'none; these runs tell no row from the best'}."
    )


def scarce_findings(runs: pd.DataFrame) -> str:
    """At which shares of the identities which of the two methods is ahead, with the difference over
    seeds."""
    parts, lines = runs["row"].str.rsplit(", ", n=1, expand=True), []
    for share in dict.fromkeys(parts[1]):
        ours = runs[(parts[0] == "CSKT") & (parts[1] == share)]
        full = runs[(parts[0] == "full fine-tuning") & (parts[1] == share)]
        if len(ours) and len(full):
            gap = difference(ours, full)
            noise = f" ({gap[1]:+.1f} to {gap[2]:+.1f} over seeds)" if gap else ""
            lines.append(f"{share} {ours['R@1'].mean() - full['R@1'].mean():+.1f}{noise}")
    return (
        f"CSKT less full fine-tuning in R@1, by share of the identities: {'; '.join(lines)}."
        if lines
        else NOT_RUN
    )


def transfer_findings(runs: pd.DataFrame) -> list[str]:
    """How often a model trained elsewhere beats the bare backbone on the target: a sentence per
    method, and per setting where the runs are of several."""
    runs = runs.assign(suffix=_transfer_suffix(runs))
    bare = runs[runs["row"] == "zero-shot"].groupby(["dataset", *SETTING])["R@1"].mean()
    trained = runs[runs["row"] != "zero-shot"]
    lines = []
    for (row, suffix), part in trained.groupby(["row", "suffix"], sort=False):
        means = part.groupby(["source", "dataset", *SETTING])["R@1"].mean()
        gains = {}
        for (source, *target), value in means.items():
            if tuple(target) in bare:
                gains[f"{source} to {target[0]}"] = value - bare[tuple(target)]
        better = [f"{pair} {gain:+.1f}" for pair, gain in gains.items() if gain > 0]
        worse = [f"{pair} {gain:+.1f}" for pair, gain in gains.items() if gain <= 0]
        lines.append(
            f"{row}{suffix}: above the bare backbone on the target in {len(better)} of "
            f"{len(gains)} pairs ({'; '.join(better) or 'none'}); "
            f"not above: {'; '.join(worse) or 'none'}."
        )
    return lines or [NOT_RUN]


def _source_data_differ(runs: pd.DataFrame) -> bool:
    """Whether a source of a transfer grid stands for data of several fingerprints."""
    return bool((runs.groupby("source")["source data"].nunique() > 1).any())


def _transfer_suffix(runs: pd.DataFrame) -> pd.Series:
    """What a label of each run of a transfer grid must add: its setting, and the data that it was
    trained on, where these differ."""
    suffix = setting_suffix(runs)
    if _source_data_differ(runs):
        suffix = suffix + ", trained on data " + runs["source data"]
    return suffix


def transfer_table(runs: pd.DataFrame) -> pd.DataFrame:
    """From each source (rows) to each target, R@1 and mAP on the target's test split, without any
    training on it."""
    if runs.empty:
        return pd.DataFrame()
    keys = ["source", "source data", "dataset", "backbone", "row", *SETTING]
    rows = []
    for key, group in runs.groupby(keys, sort=False):
        source, data, target, backbone, row, setting, inputs = key
        rows.append(
            {
                "trained on": f"{source} (synthetic)" if all(group["synthetic"]) else source,
                "training data": data,
                "tested on": target,
                "backbone": backbone,
                "model": row,
                "setting": setting,
                "inputs": inputs,
                "seeds": len(group),
                "R@1": spread(group["R@1"]),
                "mAP": spread(group["mAP"]),
            }
        )
    table = hide_shared(pd.DataFrame(rows), runs)
    return table if _source_data_differ(runs) else table.drop(columns="training data")


_EVIDENCE = ("data", "data version", "machine", "precision", "commit")


def grid_evidence(folder: str | Path) -> pd.DataFrame:
    """What stands behind each grid in ``folder``: run files, data and their version, machine,
    precision, commit, hours of training (of transfer: of testing). A run that is a row of two grids
    counts in both."""
    rows = []
    for path in sorted(path for path in Path(folder).glob("*") if path.is_dir()):
        runs = [read_run_file(file) for file in sorted(path.glob("*.json"))]
        facts: dict[str, set[str]] = {name: set() for name in _EVIDENCE}
        for run in runs:
            machine, version = run["hardware"], run["data_version"]
            facts["data"].add(run["dataset"])
            facts["data version"].add("—" if version is None else str(version))
            kind = f"{device_name(run)} ({device_kind(run)})"
            facts["machine"].add(f"{kind}, {machine['threads']} threads")
            facts["precision"].add(run["precision"])
            facts["commit"].add(str(run["commit"])[:10])
        rows.append(
            {
                "grid": path.name.replace("-", " "),
                "run files": len(runs),
                **{name: "; ".join(sorted(values)) for name, values in facts.items()},
                "hours": f"{sum(run['duration_s'] for run in runs) / 3600:.1f}",
            }
        )
    return pd.DataFrame(rows, columns=["grid", "run files", *_EVIDENCE, "hours"])


def published_transfer(path: str | Path) -> pd.DataFrame:
    """Published figures of domain transfer between the real benchmarks, with their sources; nothing
    here is ours."""
    names = {"source_dataset": "trained on", "target_dataset": "tested on"}
    table = pd.read_csv(path).rename(
        columns=names | dict(zip(("r1", "r5", "r10", "map"), MEASURES, strict=True))
    )
    return table.assign(
        **{name: table[name].map(lambda v: "" if pd.isna(v) else f"{v:.2f}") for name in MEASURES}
    )
