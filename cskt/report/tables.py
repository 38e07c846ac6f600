"""From run files and published figures to the tables of the book: nothing in a table is typed by
hand."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from cskt.config import DOMAIN_PRETRAINED, TrainConfig
from cskt.report.run_files import MEASURES, METHOD_NAMES, of_embedded_default
from cskt.report.settings import (
    SETTING,
    device_name,
    distinguishing,
    hide_shared,
    setting_line,
    setting_suffix,
)

LAYOUT_OF = {"CUHK-PEDES": "SynthPEDES-A", "ICFG-PEDES": "SynthPEDES-B", "RSTPReid": "SynthPEDES-C"}
SYNTHETIC = tuple(LAYOUT_OF.values())
NOT_RUN = "not run here"
OWN_GROUP = "runs of this code"  # beside the groups of the published figures
NOTHING = "—"  # in a cell that has no value
_UNWRAPPED = [*MEASURES, "dataset", "data", "method", "seed", "commit"]


def spread(values: pd.Series, sign: str = "") -> str:
    """Mean and, of several, standard deviation; ``sign="+"`` for differences."""
    mean = f"{values.mean():{sign}.2f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {values.std():.2f}"


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row per data set, backbone, method, number of
    epochs, way to choose the epoch and setting (:func:`cskt.report.settings.setting_of`, named in a
    column where there are several); methods in the order of the story.

    Args:
        runs: from :func:`cskt.report.run_files.run_table`.
    """
    table = _summarise(runs)
    if table.empty:
        return table
    return hide_shared(table.drop(columns="group"), runs)


def _summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """:func:`summarise` with the columns of the setting in every case."""
    untrained = runs["method"] == "zero-shot"  # neither epochs nor a choice among them
    runs = runs.assign(
        epochs=runs["epochs"].astype(str).mask(untrained, NOTHING),
        selection=runs["selection"].astype(str).mask(untrained, NOTHING),
    )
    kind = ["dataset", "backbone", "method", "epochs", "selection", *SETTING]
    rows = [_summary_row(group) for _, group in runs.groupby(kind)]
    if not rows:
        return pd.DataFrame()
    places = ["dataset", "group", "backbone", *SETTING, "order"]
    table = pd.DataFrame(rows).sort_values(places)
    return table.drop(columns="order").reset_index(drop=True)


def _group_of(origin: str) -> str:
    """Under which heading of a benchmark's table a run stands, by its record's
    ``backbone_origin``."""
    if DOMAIN_PRETRAINED in origin:
        return f"{OWN_GROUP}, ReID-domain pre-training"
    return OWN_GROUP


def _summary_row(group: pd.DataFrame) -> dict[str, Any]:
    """The line of a table for runs that differ in their seed only."""
    run = group.iloc[0]
    order = list(METHOD_NAMES)
    row = {
        "dataset": run["dataset"],
        "backbone": run["backbone"],
        "method": METHOD_NAMES.get(run["method"], run["method"]),
        "group": _group_of(run["origin"]),
        "seeds": len(group),
        "epochs": run["epochs"],
        "selected on": run["selection"],
        "setting": run["setting"],
        "inputs": run["inputs"],
    }
    for measure in MEASURES:
        row[measure] = spread(group[measure])
    row["trained parameters"] = f"{int(run['trained']):,}"
    row["order"] = order.index(run["method"]) if run["method"] in order else len(order)
    row["R@1 value"] = group["R@1"].mean()
    return row


def benchmark_table(dataset: str, literature: str | Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Published figures of a real benchmark, grouped as published, then our runs on it or "not run
    here"; those on a backbone that was trained on people already are a group of their own.

    Args: dataset: ``"CUHK-PEDES"``, ``"ICFG-PEDES"`` or ``"RSTPReid"``. literature: csv with the
        columns of ``book/data/literature.csv``. runs: from :func:`cskt.report.run_files.run_table`;
        only runs on ``dataset`` itself count, never
            synthetic ones.
    """
    rows = _published_rows(dataset, literature)
    ours = _summarise(runs[(runs["dataset"] == dataset) & ~runs["synthetic"].astype(bool)])
    if ours.empty or OWN_GROUP not in set(ours["group"]):
        rows.append(
            {
                "group": OWN_GROUP,
                "method": "CSKT",
                "encoders": "ViT-B/16 / Xformer",
                **dict.fromkeys(MEASURES, NOT_RUN),
                "source": "needs the data set, CLIP's weights and a GPU",
            }
        )
    for row in ours.to_dict("records"):
        rows.append(_benchmark_row(row))
    return pd.DataFrame(rows)


def _published_rows(dataset: str, literature: str | Path) -> list[dict[str, str]]:
    """The published figures on ``dataset``, by group in the order of the file, and by R@1."""
    published = pd.read_csv(literature)
    published["place"] = pd.factorize(published["group"])[0]
    published = published[published["dataset"] == dataset]
    published = published.sort_values(["place", "r1"], kind="stable")
    rows = []
    for row in published.to_dict("records"):
        rows.append(
            {
                "group": row["group"],
                "method": f"{row['method']} ({row['venue']})",
                "encoders": f"{row['image_encoder']} / {row['text_encoder']}",
                "R@1": published_figure(row["r1"]),
                "R@5": published_figure(row["r5"]),
                "R@10": published_figure(row["r10"]),
                "mAP": published_figure(row["map"]),
                "source": row["source"],
            }
        )
    return rows


def published_figure(value: float) -> str:
    """A percentage with two decimals; empty where none was published (NaN)."""
    return "" if pd.isna(value) else f"{value:.2f}"


def _benchmark_row(row: dict[Hashable, Any]) -> dict[str, str]:
    """A row of :func:`_summarise` in the columns of the published figures."""
    source = (
        f"run files, {row['seeds']} seeds, {row['epochs']} epochs, "
        f"selected on {row['selected on']}; {row['setting']}, {row['inputs']}"
    )
    measures = {measure: row[measure] for measure in MEASURES}
    return {
        "group": row["group"],
        "method": row["method"],
        "encoders": row["backbone"],
        **measures,
        "source": source,
    }


def synthetic_table(dataset: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Our runs on the SynthPEDES domain written in the layout of ``dataset``; every row says that
    it is synthetic, how many times the zero-shot backbone's R@1 it reaches, and which share of full
    fine-tuning's gain over that."""
    domain = LAYOUT_OF[dataset]
    runs = runs[runs["dataset"] == domain]
    table = _summarise(runs)
    if table.empty:
        figures = dict.fromkeys(MEASURES, NOT_RUN)
        return pd.DataFrame([{"data": f"{domain} (synthetic)", "method": "CSKT", **figures}])
    table = hide_shared(_with_gains(table), runs)
    table.insert(0, "data", table.pop("dataset") + " (synthetic)")
    return table.drop(columns=["group", "R@1 value"])


def _with_gains(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` of :func:`_summarise`, with what each row gains over the zero-shot backbone: the
    same backbone under the same numerics, on the same data."""
    alike = ["dataset", "backbone", *SETTING]
    alike_trained = [*alike, "epochs", "selected on"]
    zero_shot = _values_of_method(table, "zero-shot", alike)
    full = _values_of_method(table, "full fine-tuning", alike_trained)
    ratios = []
    shares = []
    for row in table.to_dict("records"):
        value = row["R@1 value"]
        bare = zero_shot.get(tuple(row[name] for name in alike))
        most = full.get(tuple(row[name] for name in alike_trained))
        ratios.append("" if bare is None else f"{value / bare:.2f}")
        if bare is None or most is None or most <= bare:
            shares.append("")
        else:
            shares.append(f"{100 * (value - bare) / (most - bare):.0f}%")
    return table.assign(
        **{"R@1 / zero-shot": ratios, "share of full fine-tuning's gain": shares},
    )


def _values_of_method(
    table: pd.DataFrame, method: str, columns: list[str]
) -> dict[Hashable, float]:
    """Mean R@1 of a method's rows by what they have in ``columns``."""
    rows = table[table["method"] == method]
    return rows.set_index(columns)["R@1 value"].to_dict()


def overview_markdown(runs: pd.DataFrame) -> str:
    """R@1 and mAP of every method with cskt-mini on every SynthPEDES domain, as the README's
    markdown table, and below it the line that says how the runs were made."""
    runs = of_embedded_default(runs)
    apart = distinguishing(runs)
    names = ["dataset", "method", *apart, "seeds", "R@1", "mAP", "trained parameters"]
    table = _summarise(runs).reindex(columns=names)
    table = table.rename(columns={"dataset": "synthetic data"})
    return f"{markdown_table(table)}\n\n{setting_line(runs)}"


def markdown_table(table: pd.DataFrame) -> str:
    """A table in markdown, without its index."""
    rule = "|" + "---|" * len(table.columns)
    lines = [_markdown_row(table.columns), rule]
    for row in table.values:
        lines.append(_markdown_row(row))
    return "\n".join(lines)


def _markdown_row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def evidence_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One line per run file: what, how long, from which commit."""
    apart = distinguishing(runs)
    names = ["file", "dataset", "method", "seed", "epochs", "selection", *apart]
    formats = {"R@1": "{:.2f}", "mAP": "{:.2f}", "trained": "{:,}", "seconds": "{:.0f}"}
    table = runs[names].copy()
    for name, form in formats.items():
        table[name] = runs[name].map(form.format)
    table["commit"] = runs["commit"].astype(str).str[:10]
    return table


def named_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The synthetic runs of cskt-mini with the methods' printed names, for the comparison figure;
    where they differ in setting, ``dataset`` names it, so that no bar is a mean over two."""
    runs = of_embedded_default(runs)
    named = runs.assign(dataset=runs["dataset"] + setting_suffix(runs))
    named["method name"] = runs["method"].map(METHOD_NAMES)
    return named.dropna(subset="method name")


def show_table(table: pd.DataFrame) -> Styler:
    """A table for a page: no index column, text to the left, a group named once, numbers in one
    line."""
    if "group" in table:
        repeated = table["group"].eq(table["group"].shift())
        table = table.assign(group=table["group"].mask(repeated, ""))
    shown = table.style.hide(axis="index")
    shown.set_properties(None, **{"text-align": "left"})
    unwrapped = table.columns.intersection(_UNWRAPPED, sort=False)
    shown.set_properties(unwrapped, **{"white-space": "nowrap"})
    return shown


# One run


def setting_table(config: TrainConfig) -> pd.DataFrame:
    """Every setting of a run beside the paper's; the last column marks where they differ."""
    ours = _flat_settings(config)
    paper = _flat_settings(TrainConfig.paper(dataset=config.dataset))
    rows = {}
    for name, value in ours.items():
        if name not in ("data_root", "output"):
            differs = "" if value == paper[name] else "differs"
            rows[name] = {"this run": str(value), "paper": str(paper[name]), "": differs}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis("setting")


def _flat_settings(config: TrainConfig) -> dict[str, Any]:
    """The fields of a configuration by name, the method's as ``cskt.NAME``."""
    values = config.to_dict()
    for name, value in values.pop("cskt").items():
        values[f"cskt.{name}"] = value
    return values


def gain_table(record: dict[str, Any]) -> pd.DataFrame:
    """Zero-shot and trained measures of one run on test, both directions, in percent."""
    trained = METHOD_NAMES.get(record["method"], record["method"])
    rows = {
        ("text → image", "zero-shot"): record["zero_shot"]["text_to_image"],
        ("text → image", trained): record["metrics"]["text_to_image"],
        ("image → text", "zero-shot"): record["zero_shot"]["image_to_text"],
        ("image → text", trained): record["metrics"]["image_to_text"],
    }
    table = pd.DataFrame(rows).T
    return table[[*MEASURES, "mINP"]].map("{:.2f}".format)


def describe_run(record: dict[str, Any]) -> str:
    """One line: data, backbone, seed, precision, hardware, duration, fingerprint, commit."""
    kind = "synthetic" if record["synthetic"] else "real"
    threads = record["hardware"]["threads"]
    facts = [
        f"{kind} data {record['dataset']}",
        record["config"]["backbone"],
        record["method"],
        f"seed {record['seed']}",
        f"{record['precision']} on {device_name(record)} ({threads} threads)",
        f"{record['duration_s']:.0f} s",
        f"data fingerprint {record['data_fingerprint'][:12]}",
        f"commit {str(record['commit'])[:12]}",
    ]
    return ", ".join(facts)


def describe_gain(record: dict[str, Any]) -> str:
    """One line: R@1 before and after, and what was trained for it."""
    before = record["zero_shot"]["text_to_image"]["R@1"]
    after = record["metrics"]["text_to_image"]["R@1"]
    trained = record["trainable_parameters"]
    total = record["total_parameters"]
    return (
        f"R@1 {before:.2f} -> {after:.2f} ({after / before:.2f} times) by training {trained:,} "
        f"of {total:,} parameters ({100 * trained / total:.1f}%)"
    )
