"""From run files and published figures to the tables of the book: nothing in a table is typed by
hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
)

LAYOUT_OF = {"CUHK-PEDES": "SynthPEDES-A", "ICFG-PEDES": "SynthPEDES-B", "RSTPReid": "SynthPEDES-C"}
SYNTHETIC = tuple(LAYOUT_OF.values())
NOT_RUN = "not run here"
OWN_GROUP = "runs of this code"  # beside the groups of the published figures
NOTHING = "—"  # in a cell that has no value
NO_ROWS = pd.DataFrame()
_PUBLISHED = {
    "r1": "R@1",
    "r5": "R@5",
    "r10": "R@10",
    "map": "mAP",
    "source_dataset": "trained on",
    "target_dataset": "tested on",
    "trainable_params_millions": "trained parameters, millions",
    "memory_mb": "training memory, MB",
}
_UNWRAPPED = [*MEASURES, "dataset", "data", "method", "seed", "commit"]


def spread(values: pd.Series, sign: str = "") -> str:
    """Mean and, of several, standard deviation; ``sign="+"`` for differences. A dash where a value
    is missing."""
    if values.isna().any():
        return NOTHING
    mean = f"{values.mean():{sign}.2f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {values.std():.2f}"


def formatted(values: pd.Series, form: str) -> pd.Series:
    """Numbers as text, empty where they are not known (NaN)."""
    return values.map(form.format, na_action="ignore").astype(object).fillna("")


def over_seeds(runs: pd.DataFrame, kind: list[str], columns: Sequence[str]) -> pd.DataFrame:
    """A row for each value of the columns ``kind``, in the order of the runs: how many seeds, and
    the :func:`spread` of each of ``columns``. In column ``method`` stand the printed names."""
    groups = runs.groupby(kind, sort=False)
    table = groups.size().rename("seeds").reset_index()
    for column in columns:
        table[column] = groups[column].agg(spread).to_numpy()
    if "method" in table:
        table["method"] = table["method"].replace(METHOD_NAMES)
    return table


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row per data set, backbone, method, number of
    epochs, way to choose the epoch and setting (:func:`cskt.report.settings.setting_of`); methods
    in the order of the story. ``R@1 value`` is the mean as a number.

    Args:
        runs: from :func:`cskt.report.run_files.run_table`.
    """
    if runs.empty:
        return pd.DataFrame()
    order = pd.Series(range(len(METHOD_NAMES)), index=list(METHOD_NAMES))
    untrained = runs["method"] == "zero-shot"  # neither epochs nor a choice among them
    runs = runs.assign(
        epochs=runs["epochs"].astype(str).mask(untrained, NOTHING),
        selection=runs["selection"].mask(untrained, NOTHING),
        order=runs["method"].map(order),
    )
    runs = runs.sort_values(["dataset", "backbone", *SETTING, "order"], kind="stable")
    kind = ["dataset", "backbone", "method", "epochs", "selection", *SETTING, "trained"]
    table = over_seeds(runs, kind, MEASURES)
    table["R@1 value"] = runs.groupby(kind, sort=False)["R@1"].mean().to_numpy()
    table["trained parameters"] = table.pop("trained").map("{:,}".format)
    return table.rename(columns={"selection": "selected on"})


def published(path: str | Path) -> pd.DataFrame:
    """Published figures as printed in their sources, from a csv file, in the words of our tables;
    nothing of ours is in it."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=_PUBLISHED)


def benchmark_table(dataset: str, literature: str | Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Published figures of a real benchmark, by R@1 within the groups of the file, then our runs on
    it or "not run here". Those on a backbone that was trained on people already are a group of
    their own.

    Args:
        dataset: ``"CUHK-PEDES"``, ``"ICFG-PEDES"`` or ``"RSTPReid"``.
        literature: csv with the columns of ``book/data/literature.csv``.
        runs: from :func:`cskt.report.run_files.run_table`; only runs on ``dataset`` itself count,
            never synthetic ones.
    """
    columns = ["group", "method", "towers", *MEASURES, "source"]
    real = ~runs["synthetic"].astype(bool)
    ours = _our_rows(runs[real & (runs["dataset"] == dataset)])
    theirs = _their_rows(literature)
    on_dataset = theirs["dataset"] == dataset
    return pd.concat([theirs[on_dataset], ours], ignore_index=True)[columns]


def _their_rows(literature: str | Path) -> pd.DataFrame:
    """The published figures, by R@1 within the groups of the file."""
    table = published(literature)
    groups, _ = pd.factorize(table["group"])
    table["place"] = groups
    table["value"] = table["R@1"].astype(float)
    table["method"] += " (" + table["venue"] + ")"
    table["towers"] = table["image_encoder"] + " / " + table["text_encoder"]
    return table.sort_values(["place", "value"], kind="stable")


def _our_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs on a real benchmark by the backbone's origin, in groups below the published ones."""
    origin = runs["origin"].astype(str)  # "nan" of older records, which do not say
    of_people = origin.str.contains(DOMAIN_PRETRAINED, regex=False)
    groups = [_rows_of_group(runs[~of_people], OWN_GROUP)]
    if of_people.any():
        group = f"{OWN_GROUP}, ReID-domain pre-training"
        groups.append(_rows_of_group(runs[of_people], group))
    return pd.concat(groups)


def _rows_of_group(runs: pd.DataFrame, group: str) -> pd.DataFrame:
    """Runs on a real benchmark in the columns of the published figures, or a row that says that
    there are none."""
    table = summarise(runs)
    if table.empty:
        not_run = {
            "method": "CSKT",
            "towers": "ViT-B/16 / Xformer",
            **dict.fromkeys(MEASURES, NOT_RUN),
            "source": "needs the data set, CLIP's weights and a GPU",
        }
        table = pd.DataFrame([not_run])
    else:
        made = table["seeds"].astype(str) + " seeds, " + table["epochs"] + " epochs"
        setting = table["setting"] + ", " + table["inputs"]
        table["source"] = "run files, " + made + ", selected on " + table["selected on"]
        table["source"] += "; " + setting
        table = table.rename(columns={"backbone": "towers"})
    return table.assign(group=group)


def synthetic_table(dataset: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Our runs on the SynthPEDES domain written in the layout of ``dataset``; every row says that
    it is synthetic, how many times the zero-shot backbone's R@1 it reaches, and which share of full
    fine-tuning's gain over that."""
    domain = LAYOUT_OF[dataset]
    runs = runs[runs["dataset"] == domain]
    table = summarise(runs)
    if table.empty:
        figures = dict.fromkeys(MEASURES, NOT_RUN)
        return pd.DataFrame([{"data": f"{domain} (synthetic)", "method": "CSKT", **figures}])
    table = hide_shared(_with_gains(table), runs)
    table.insert(0, "data", table.pop("dataset") + " (synthetic)")
    return table.drop(columns="R@1 value")


def _with_gains(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` of :func:`summarise`, with what each row gains over the zero-shot backbone: the
    same backbone under the same numerics, on the same data."""
    alike = ["dataset", "backbone", *SETTING]
    value = table["R@1 value"]
    bare = _figures_of_method(table, "zero-shot", alike)
    full = _figures_of_method(table, "full fine-tuning", [*alike, "epochs", "selected on"])
    share = ((value - bare) / (full - bare)).where(full > bare)
    gains = {
        "R@1 / zero-shot": formatted(value / bare, "{:.2f}"),
        "share of full fine-tuning's gain": formatted(share, "{:.0%}"),
    }
    return table.assign(**gains)


def _figures_of_method(table: pd.DataFrame, method: str, alike: list[str]) -> pd.Series:
    """For each row R@1 of the row of ``method`` that equals it in the columns ``alike``, or NaN."""
    rows = table[table["method"] == method].set_index(alike)
    return table[alike].join(rows["R@1 value"], on=alike)["R@1 value"]


def overview_markdown(runs: pd.DataFrame) -> str:
    """R@1 and mAP of every method with cskt-mini on every SynthPEDES domain, as the README's
    markdown table, and below it the line that says how the runs were made."""
    runs = of_embedded_default(runs)
    apart = distinguishing(runs)
    names = ["dataset", "method", *apart, "seeds", "R@1", "mAP", "trained parameters"]
    table = summarise(runs).reindex(columns=names)
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


def named_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """The synthetic runs of cskt-mini with the methods' printed names, for the comparison figure;
    where they differ in setting, ``dataset`` names it, so that no bar is a mean over two."""
    runs = of_embedded_default(runs)
    named = runs.assign(**{"method name": runs["method"].map(METHOD_NAMES)})
    for name in distinguishing(runs):
        named["dataset"] += ", " + runs[name]
    return named.dropna(subset="method name")


def show_table(table: pd.DataFrame, sortable: bool = False) -> Styler:
    """A table for a page: no index column, text to the left, a group named once, numbers in one
    line and with two decimals. One that is ``sortable``, by the script of the book, names the group
    in each row."""
    if "group" in table and not sortable:
        repeated = table["group"].eq(table["group"].shift())
        table = table.assign(group=table["group"].mask(repeated, ""))
    shown = table.style.hide(axis="index").format(precision=2, na_rep="")
    shown.set_properties(None, **{"text-align": "left"})
    unwrapped = table.columns.intersection(_UNWRAPPED, sort=False)
    shown.set_properties(unwrapped, **{"white-space": "nowrap"})
    # The page's own colours, dark ones too.
    shown.set_table_attributes(f'class="dataframe{" sortable" if sortable else ""}"')
    return shown


# One run


def setting_table(config: TrainConfig) -> pd.DataFrame:
    """Every setting of a run beside the paper's; the last column marks where they differ."""
    paper = TrainConfig.paper(dataset=config.dataset)
    table = pd.DataFrame({"this run": _settings(config), "paper": _settings(paper)})
    differs = table["this run"] != table["paper"]
    table[""] = differs.map({True: "differs", False: ""})
    return table.drop(["data_root", "output"]).rename_axis("setting")


def _settings(config: TrainConfig) -> pd.Series:
    """The fields of a configuration as text, the method's as ``cskt.NAME``."""
    return pd.json_normalize(config.to_dict()).iloc[0].map(str)


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
