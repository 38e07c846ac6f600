"""Tables are built from run files and published figures, and never mix synthetic results with real
ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from cskt import CSKTError, TrainConfig, figures, results, settings
from cskt.config import METHODS, MINI_LEARNING_RATES
from cskt.experiments import GRIDS, grid_rows

SYNTHETIC = "fp32, cpu, data version 2, torch 2, open_clip_torch 3, cskt 0.1"
REAL = SYNTHETIC.replace("data version 2, ", "")
INPUTS = "data ffffffff, weights eeeeeeee"
MACHINE = {"device": "x86_64", "platform": "Linux-x86_64", "threads": 1}
PACKAGES = {"torch": "2.15.0", "open_clip_torch": "3.3.0", "cskt": "0.1.0"}
LITERATURE = Path(__file__).parents[1] / "book" / "data" / "literature.csv"


def run_file(
    folder, name, dataset="SynthPEDES-A", method="cskt", seed=0, r1=30.0, zero_shot=20.0, **changes
):
    def measures(value):
        ranked = {
            "R@1": value,
            "R@5": value + 20,
            "R@10": value + 30,
            "mAP": value - 5,
            "mINP": value - 10,
        }
        return {"text_to_image": ranked, "image_to_text": ranked}

    synthetic = dataset.startswith("Synth")
    selected = {
        "val": {"epoch": 1, "metrics": measures(r1)},
        "test": {"epoch": 2, "metrics": measures(r1 + 4)},
        "last": {"epoch": 3, "metrics": measures(r1 + 1)},
    }
    record = {
        "kind": "train",
        "dataset": dataset,
        "synthetic": synthetic,
        "method": method,
        "seed": seed,
        "config": {"backbone": "cskt-mini", "epochs": 3},
        "selection": "val",
        "selected": selected,
        "data_version": 2 if synthetic else None,
        "data_fingerprint": "f" * 64,
        "weights_fingerprint": "e" * 16,
        "precision": "fp32",
        "commit": "c" * 40,
        "hardware": MACHINE,
        "versions": PACKAGES,
        "duration_s": 12.0,
        "trainable_parameters": 1000,
        "total_parameters": 9000,
        "metrics": measures(r1),
        "val_metrics": measures(r1 + 10),
        "zero_shot": measures(zero_shot),
        **changes,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record))
    return path


def test_mean_and_spread_over_seeds(tmp_path):
    files = [run_file(tmp_path, f"r{seed}", seed=seed, r1=30.0 + seed) for seed in range(3)]
    table = results.summarise(results.run_table(files))
    assert table.loc[0, "R@1"] == "31.00 ± 1.00" and table.loc[0, "seeds"] == 3


@pytest.mark.parametrize("dataset", list(results.LAYOUT_OF))
def test_without_a_real_run_the_benchmark_says_so(dataset, tmp_path):
    """A synthetic run, even one whose file claims a real name's domain, never reaches the published
    table."""
    synthetic = run_file(tmp_path, "s", dataset=results.LAYOUT_OF[dataset], r1=99.99)
    table = results.benchmark_table(dataset, LITERATURE, results.run_table([synthetic]))
    ours = table[table["group"] == "runs of this code"]
    assert (ours[list(results.MEASURES)] == results.NOT_RUN).all(axis=None) and len(ours) == 1
    assert "99.99" not in table.to_string()
    published = table[table["method"] == "CSKT (ICASSP 2024)"]
    assert len(published) == 1 and published["source"].iloc[0]


def test_published_figures_are_those_of_the_file():
    table = results.benchmark_table("CUHK-PEDES", LITERATURE, results.run_table([]))
    raw = pd.read_csv(LITERATURE).query("dataset == 'CUHK-PEDES'")
    assert len(table) == len(raw) + 1
    assert set(table["R@1"][:-1]) == {f"{value:.2f}" for value in raw["r1"]}


def test_a_real_run_appears_beside_the_literature(tmp_path):
    file = run_file(
        tmp_path,
        "real",
        dataset="CUHK-PEDES",
        r1=69.0,
        config={"backbone": "ViT-B-16", "epochs": 60},
    )
    row = results.benchmark_table("CUHK-PEDES", LITERATURE, results.run_table([file])).iloc[-1]
    assert row["R@1"] == "69.00" and "selected on val" in row["source"]


def test_every_synthetic_row_is_labelled(tmp_path):
    files = [
        run_file(tmp_path, method, method=method, r1=value)
        for method, value in (("zero-shot", 20.0), ("cskt", 30.0), ("full", 40.0))
    ]
    table = results.synthetic_table("CUHK-PEDES", results.run_table(files))
    assert list(table["method"]) == ["zero-shot", "full fine-tuning", "CSKT"]
    assert all("synthetic" in data for data in table["data"])
    assert list(table["R@1 / zero-shot"]) == ["1.00", "2.00", "1.50"]
    assert (
        results.synthetic_table("RSTPReid", results.run_table(files))["R@1"] == results.NOT_RUN
    ).all()


def test_findings_quote_the_runs(tmp_path):
    files = [
        run_file(tmp_path, method, method=method, r1=value)
        for method, value in (("zero-shot", 20.0), ("cskt", 30.0), ("full", 40.0))
    ]
    (line,) = results.findings(results.run_table(files))
    assert (
        "30.0 (mean of 1 seeds), 1.50 times" in line
        and "20.0; full fine-tuning reaches 40.0 (seeds: 1)" in line
    )
    assert "so CSKT gives 50% of its gain with 11.1% of the parameters trained" in line
    assert results.findings(results.run_table([])) == ["No synthetic runs were found."]


@pytest.mark.parametrize("content", ["not json", "[]", '{"dataset": "SynthPEDES-A"}'])
def test_a_damaged_run_file_is_named(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(CSKTError, match="bad.json"):
        results.run_table([tmp_path / "bad.json"])


def test_setting_table_marks_what_differs_from_the_paper():
    table = results.setting_table(TrainConfig.mini())
    assert table.loc["epochs", "paper"] == "60" and table.loc["epochs", ""] == "differs"
    assert table.loc["temperature", ""] == ""


def test_check_parameters():
    results.check_parameters(
        {"dataset": "A", "_hidden": 1, "In": [], "pd": pd, "len": len}, ["dataset"]
    )
    with pytest.raises(
        CSKTError, match="unknown parameter epoch; this notebook takes dataset, epochs"
    ):
        results.check_parameters({"epoch": 3, "dataset": "A"}, ["dataset", "epochs"])


# Grids


def test_selection_on_val_and_on_test_are_never_averaged(tmp_path):
    files = [
        run_file(tmp_path, f"{split}{seed}", seed=seed, r1=value + seed, selection=split)
        for split, value in (("val", 30.0), ("test", 40.0))
        for seed in range(2)
    ]
    files.append(run_file(tmp_path, "bare", method="zero-shot", r1=20.0))
    table = results.summarise(results.run_table(files)).set_index("selected on")
    assert dict(table["R@1"]) == {"—": "20.00", "val": "30.50 ± 0.71", "test": "40.50 ± 0.71"}


def grid_file(folder, grid, row, seed, r1, **changes):
    path = run_file(
        folder, f"{row}-{seed}".replace("/", "-"), seed=seed, r1=r1, grid=grid, row=row, **changes
    )
    record = json.loads(path.read_text())
    record["metrics"]["text_to_image"]["intervals"] = {"R@1": [r1 - 2, r1 + 3]}
    target = folder / "runs" / grid.replace(" ", "-")
    target.mkdir(parents=True, exist_ok=True)
    (target / path.name).write_text(json.dumps(record))
    return folder / "runs"


def test_grid_table_tells_differences_from_noise(tmp_path):
    figures_of = {"BPT": (50, 52, 51), "DAT": (59.5, 61, 61), "CSKT (BPT + DAT)": (60, 61, 62)}
    for row, values in reversed(
        figures_of.items()
    ):  # the table has the grid's order, not the files'
        for seed, r1 in enumerate(values):
            folder = grid_file(tmp_path, "components", row, seed, r1)
    grid_file(tmp_path, "components", "none (zero-shot)", 0, 20)
    runs = results.read_grid(folder, "components")
    table = results.grid_table(runs, "CSKT (BPT + DAT)").set_index("variant")
    assert list(table.index) == ["none (zero-shot)", "BPT", "DAT", "CSKT (BPT + DAT)"]
    assert list(table["told apart"]) == ["", "yes", "no", ""]
    assert (
        table.loc["BPT", "R@1"] == "51.00 ± 1.00"
        and table.loc["BPT", "95 % over people"] == "49.0 to 54.0"
    )
    rows = dict(list(runs.groupby("row")))
    whole = rows["CSKT (BPT + DAT)"]
    gap, low, high = results.difference(rows["BPT"], whole)
    expected = stats.t.ppf(0.975, 4) * (2 / 3) ** 0.5  # equal variances of 1, 3 seeds each
    assert (gap, low, high) == pytest.approx((-10, -10 - expected, -10 + expected))
    assert results.difference(rows["none (zero-shot)"], whole) is None
    lines = results.grid_findings(runs, "CSKT (BPT + DAT)")
    assert (
        lines[0].startswith("Told apart")
        and "BPT -10.0" in lines[0]
        and "DAT" not in lines[0].split(": ")[1]
    )
    assert lines[1].startswith("Not told apart") and "DAT -0.5" in lines[1]
    assert results.grid_findings(results.read_grid(tmp_path, "components"), "BPT") == [
        results.NOT_RUN
    ]


def test_grid_figures_show_every_row(tmp_path):
    for grid, rows in (
        ("prompt depth", ("1", "3", "all")),
        ("identities", ("CSKT, 5%", "full fine-tuning, 100%")),
    ):
        for i, row in enumerate(rows):
            folder = grid_file(tmp_path, grid, row, 0, 40.0 + i)
    depth, scarce = (results.read_grid(folder, grid) for grid in ("prompt depth", "identities"))
    assert list(depth["row"]) == ["1", "3", "all"]
    (axes,) = figures.grid_lines({"prompt depth": depth}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3", "all"]
    (bars,) = axes.containers
    low, high = (bars[2][0].get_segments()[2][end][1] for end in (0, 1))
    assert (low, high) == pytest.approx((40.0, 45.0))  # 42 with its interval
    (axes,) = figures.less_data(scarce).axes
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "CSKT",
        "full fine-tuning",
    }
    (axes,) = figures.grid_dots(depth, "all").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "3", "all"]


def test_transfer_tables_keep_ours_and_the_published_apart(tmp_path):
    for target in ("SynthPEDES-B", "SynthPEDES-C"):
        folder = grid_file(
            tmp_path, "transfer", "CSKT", 0, 33.0, dataset=target, source="SynthPEDES-A"
        )
    ours = results.transfer_table(results.read_grid(folder, "transfer"))
    assert set(ours["trained on"]) == {"SynthPEDES-A (synthetic)"} and "source" not in ours
    published = results.published_transfer(LITERATURE.with_name("generalisation.csv"))
    assert len(published) == 24 and published["source"].notna().all()
    assert not set(published["trained on"]) & {"SynthPEDES-A", "SynthPEDES-A (synthetic)"}


def test_a_grid_has_the_paper_s_rows():
    assert list(grid_rows("prompt depth", "ViT-B-16-quickgelu")) == ["1", "3", "6", "9", "all"]
    assert {row.get("method", "cskt") for row in grid_rows("components").values()} == set(METHODS)
    for grid in GRIDS:
        for row in grid_rows(grid).values():
            TrainConfig.from_dict(
                {**TrainConfig.mini().to_dict(), **{k: v for k, v in row.items() if k != "cskt"}}
            )
            dataclasses.replace(TrainConfig.mini().cskt, **row.get("cskt", {}))


def test_every_trained_method_is_searched_at_three_rates_and_has_one_of_them():
    rows = grid_rows("learning rate")
    assert rows["CSKT, 0.01"] == {"method": "cskt", "learning_rate": 0.01}
    assert rows["full fine-tuning, 0.0003, warm-up 2"] == {
        "method": "full",
        "learning_rate": 3e-4,
        "warmup_epochs": 2,
    }
    for method in set(METHODS) - {"zero-shot"}:
        rates = sorted({row["learning_rate"] for row in rows.values() if row["method"] == method})
        assert len(rates) == 3 and MINI_LEARNING_RATES[method] in rates


def test_data_sets_and_backbones_are_never_mixed(tmp_path):
    vit = {"backbone": "ViT-B-16-quickgelu", "epochs": 60}
    mini = {"backbone": "cskt-mini", "epochs": 6}
    for dataset, config, r1 in (
        ("SynthPEDES-A", mini, 30.0),
        ("CUHK-PEDES", vit, 70.0),
        ("SynthPEDES-A", vit, 50.0),
    ):
        for depth in ("6", "1") if config is vit else ("4", "1"):
            name = f"{dataset}-{config['backbone']}"
            (tmp_path / name).mkdir(exist_ok=True)
            folder = grid_file(
                tmp_path / name, "prompt depth", depth, 0, r1, dataset=dataset, config=config
            )
            target = tmp_path / "all" / "prompt-depth"
            target.mkdir(parents=True, exist_ok=True)
            source = next((folder / "prompt-depth").glob(f"{depth}-*.json"))
            (target / f"{name}-{depth}.json").write_text(source.read_text())
    parts = dict(results.by_data(results.read_grid(tmp_path / "all", "prompt depth")))
    headings = set(parts)
    parts = {heading.partition(";")[0]: part for heading, part in parts.items()}
    assert set(parts) == {
        "SynthPEDES-A (synthetic), cskt-mini",
        "CUHK-PEDES, ViT-B-16-quickgelu",
        "SynthPEDES-A (synthetic), ViT-B-16-quickgelu",
    }
    assert {heading.partition(";")[2] for heading in headings if "CUHK" in heading} == {
        f" epoch chosen on val; {REAL}; {INPUTS}"
    }
    assert list(parts["CUHK-PEDES, ViT-B-16-quickgelu"]["row"]) == ["1", "6"], (
        "in the order of that backbone's grid"
    )
    assert set(parts["SynthPEDES-A (synthetic), cskt-mini"]["R@1"]) == {30.0}
    table = results.summarise(results.run_table((tmp_path / "all" / "prompt-depth").glob("*.json")))
    assert sorted(table["R@1"]) == ["30.00 ± 0.00", "50.00 ± 0.00", "70.00 ± 0.00"]


def test_a_val_split_that_is_test_is_called_so(tmp_path):
    note = "ICFG-PEDES has no val split; test stands in"
    file = run_file(
        tmp_path,
        "icfg",
        dataset="ICFG-PEDES",
        notes=[note],
        config={"backbone": "ViT-B-16", "epochs": 60},
    )
    table = results.benchmark_table("ICFG-PEDES", LITERATURE, results.run_table([file]))
    ours = table[table["group"] == "runs of this code"].iloc[0]
    assert ours["source"].endswith(f"60 epochs, selected on test (no val split); {REAL}, {INPUTS}")
    assert ours["encoders"] == "ViT-B-16"


def test_one_seed_a_row_is_said(tmp_path):
    for row in ("BPT", "CSKT (BPT + DAT)"):
        folder = grid_file(tmp_path, "components", row, 0, 40.0)
    (line,) = results.grid_findings(results.read_grid(folder, "components"), "CSKT (BPT + DAT)")
    assert "takes two seeds" in line


def test_evidence_of_the_grids(tmp_path):
    machine = MACHINE | {"threads": 2}
    facts = dict(hardware=machine, precision="fp32", duration_s=1800)
    for seed in (0, 1):
        folder = grid_file(tmp_path, "prompt depth", "1", seed, 40.0, **facts)
    (row,) = results.grid_evidence(folder).to_dict("records")
    assert row == {
        "grid": "prompt depth",
        "run files": 2,
        "data": "SynthPEDES-A",
        "data version": "2",
        "machine": "x86_64 (cpu), 2 threads",
        "precision": "fp32",
        "commit": "c" * 10,
        "hours": "1.0",
    }
    assert results.grid_evidence(tmp_path / "none").empty


def test_findings_of_grids_say_what_the_runs_say(tmp_path):
    for row, r1 in (("4", 40.0), ("8", 44.0), ("16", 30.0)):  # each interval is r1 - 2 to r1 + 3
        folder = grid_file(tmp_path, "reduction", row, 0, r1)
    line = results.range_findings(results.read_grid(folder, "reduction"))
    assert line.startswith("Highest R@1: 44.0 for 8 (42.0 to 47.0") and line.endswith(
        "end below: 16 (30.0)."
    )
    for seed in (0, 1):
        for row, r1 in (("CSKT, 5%", 20.0), ("full fine-tuning, 5%", 15.0)):
            folder = grid_file(tmp_path, "identities", row, seed, r1 + seed)
    line = results.scarce_findings(results.read_grid(folder, "identities"))
    assert "5% +5.0 (" in line and "over seeds)" in line
    for target, row, r1 in (
        ("SynthPEDES-B", "zero-shot", 20.0),
        ("SynthPEDES-C", "zero-shot", 20.0),
        ("SynthPEDES-B", "CSKT", 33.0),
        ("SynthPEDES-C", "CSKT", 18.0),
    ):
        folder = grid_file(
            tmp_path, "transfer", row, target[-1], r1, dataset=target, source="SynthPEDES-A"
        )
    (line,) = results.transfer_findings(results.read_grid(folder, "transfer"))
    assert line == (
        "CSKT: above the bare backbone on the target in 1 of 2 pairs (SynthPEDES-A to SynthPEDES-B +13.0); "
        "not above: SynthPEDES-A to SynthPEDES-C -2.0."
    )


# Settings that no mean may cross


OTHER_SETTINGS = {
    "precision": ({"precision": "bf16"}, SYNTHETIC.replace("fp32", "bf16")),
    "device": ({"hardware": MACHINE | {"device": "NVIDIA H100"}}, SYNTHETIC.replace("cpu", "cuda")),
    "data version": ({"data_version": 1}, SYNTHETIC.replace("version 2", "version 1")),
    "data": ({"data_fingerprint": "a" * 64}, INPUTS.replace("ffffffff", "aaaaaaaa")),
    "weights": ({"weights_fingerprint": "b" * 16}, INPUTS.replace("eeeeeeee", "bbbbbbbb")),
    "torch": (
        {"versions": PACKAGES | {"torch": "3.0.1"}},
        SYNTHETIC.replace("torch 2,", "torch 3,"),
    ),
    "cskt": ({"versions": PACKAGES | {"cskt": "0.2.0"}}, SYNTHETIC.replace("cskt 0.1", "cskt 0.2")),
}
other_settings = pytest.mark.parametrize(
    ("changes", "name"), OTHER_SETTINGS.values(), ids=OTHER_SETTINGS
)


def two_settings(folder, changes, methods=("zero-shot", "cskt")):
    """Two seeds of every method at R@1 30 in one setting, and two at 40 in another."""
    files = []
    for method in methods:
        for seed in (0, 1):
            files.append(run_file(folder, f"{method}-{seed}", method=method, seed=seed, r1=30.0))
            files.append(
                run_file(
                    folder, f"{method}-{seed}-other", method=method, seed=seed, r1=40.0, **changes
                )
            )
    return results.run_table(files)


@other_settings
def test_no_table_mixes_settings_and_every_table_names_them(changes, name, tmp_path):
    runs = two_settings(tmp_path, changes)
    column = "inputs" if "weights" in name else "setting"
    usual = INPUTS if column == "inputs" else SYNTHETIC
    for table in (results.summarise(runs), results.synthetic_table("CUHK-PEDES", runs)):
        assert sorted(table["R@1"]) == ["30.00 ± 0.00"] * 2 + ["40.00 ± 0.00"] * 2
        assert set(table[column]) == {usual, name}
    assert set(table["R@1 / zero-shot"]) == {"1.00"}, "the gain is one over the same setting"
    overview = results.overview_markdown(runs)
    assert (
        f"| CSKT | {name} | 2 | 40.00" in overview and f"| CSKT | {usual} | 2 | 30.00" in overview
    )
    first, second = sorted(results.findings(runs))
    assert name in first + second and "30.0 (mean of 2 seeds)" in first + second
    named = results.named_methods(runs)
    assert (named.groupby(["dataset", "method"])["R@1"].nunique() == 1).all()
    assert set(results.evidence_table(runs)[column]) == {usual, name}


def test_a_real_benchmark_s_rows_name_their_setting(tmp_path):
    config = {"backbone": "ViT-B-16", "epochs": 60}
    files = [
        run_file(
            tmp_path, precision, dataset="CUHK-PEDES", r1=r1, precision=precision, config=config
        )
        for precision, r1 in (("fp32", 70.0), ("bf16", 60.0))
    ]
    table = results.benchmark_table("CUHK-PEDES", LITERATURE, results.run_table(files))
    ours = table[table["group"] == "runs of this code"].set_index("R@1")["source"]
    assert set(ours.index) == {"70.00", "60.00"} and "; fp32, cpu, torch 2" in ours["70.00"]
    assert "setting" not in table


def test_one_setting_is_said_once(tmp_path):
    runs = results.run_table([run_file(tmp_path, "a"), run_file(tmp_path, "b", seed=1)])
    for table in (results.summarise(runs), results.evidence_table(runs)):
        assert not {"setting", "inputs"} & set(table)
    assert results.setting_line(runs) == f"All runs: {SYNTHETIC}; {INPUTS}."
    assert results.overview_markdown(runs).endswith(f"|\n\nAll runs: {SYNTHETIC}; {INPUTS}.")
    other = results.run_table([tmp_path / "a.json", run_file(tmp_path, "c", precision="bf16")])
    line = results.setting_line(other)
    assert (
        line.startswith("Runs of 2 settings, never averaged together: fp32, cpu,")
        and "; bf16, cpu," in line
    )
    assert results.setting_line(results.run_table([])) == "No runs."


def test_several_domains_have_several_fingerprints(tmp_path):
    """The data of A and B differ, of course: that is no difference in setting."""
    files = [
        run_file(tmp_path, "a"),
        run_file(tmp_path, "b", dataset="SynthPEDES-B", data_fingerprint="b" * 64),
    ]
    runs = results.run_table(files)
    assert not {"setting", "inputs"} & set(results.summarise(runs))
    assert results.setting_line(runs) == f"All runs: {SYNTHETIC}."
    assert set(results.named_methods(runs)["dataset"]) == {"SynthPEDES-A", "SynthPEDES-B"}


@other_settings
def test_a_grid_of_two_settings_is_shown_apart_and_not_compared(changes, name, tmp_path):
    for row in ("CSKT, 5%", "full fine-tuning, 5%"):
        for seed in (0, 1):
            grid_file(tmp_path, "identities", row, seed, 30.0)
            folder = grid_file(tmp_path, "identities", row, seed + 2, 40.0 + seed, **changes)
    grid = results.read_grid(folder, "identities")
    (first, usual), (second, other) = results.by_data(grid)
    assert set(usual["R@1"]) == {30.0} and SYNTHETIC in first and INPUTS in first and name in second
    assert list(results.grid_table(other, "CSKT, 5%")["R@1"]) == ["40.50 ± 0.71"] * 2
    message = "runs of 2 settings cannot be averaged or compared .*take those of one setting"
    with pytest.raises(CSKTError, match=message):
        results.difference(usual, other)
    for refused in (results.grid_table, results.range_findings, results.scarce_findings):
        with pytest.raises(CSKTError, match=message):
            refused(grid)
    with pytest.raises(CSKTError, match=message):
        results.grid_findings(grid, "CSKT, 5%")


def test_grids_chosen_on_val_and_on_test_stand_apart(tmp_path):
    for selection, r1 in (("val", 30.0), ("test", 40.0), ("last", 35.0)):
        for seed in (0, 1):
            name = ("val", "test", "last").index(selection) * 2 + seed
            folder = grid_file(tmp_path, "reduction", "4", name, r1, selection=selection)
    parts = results.by_data(results.read_grid(folder, "reduction"))
    assert [heading.split("; ")[1] for heading, _ in parts] == [
        "epoch chosen on val",
        "epoch chosen on test",
        "last epoch",
    ]
    assert [set(part["R@1"]) for _, part in parts] == [{30.0}, {40.0}, {35.0}]


def test_transfer_is_apart_by_setting_and_by_the_data_trained_on(tmp_path):
    common = dict(dataset="SynthPEDES-B", source="SynthPEDES-A")
    bf16 = {**common, "precision": "bf16"}
    other = {**common, "source_fingerprint": "9" * 64}
    for seed, (row, r1, changes) in enumerate(
        [
            ("zero-shot", 20.0, common),
            ("CSKT", 30.0, common),
            ("zero-shot", 25.0, bf16),
            ("CSKT", 26.0, bf16),
        ]
    ):
        changes = {"source_fingerprint": "8" * 64, **changes}
        folder = grid_file(tmp_path, "transfer", row, seed, r1, **changes)
    runs = results.read_grid(folder, "transfer")
    table = results.transfer_table(runs)
    assert (
        sorted(table["R@1"]) == ["20.00", "25.00", "26.00", "30.00"]
        and table["setting"].nunique() == 2
    )
    assert "training data" not in table
    lines = results.transfer_findings(runs)
    assert sorted(line.split("(")[1].split(")")[0] for line in lines) == [
        "SynthPEDES-A to SynthPEDES-B +1.0",
        "SynthPEDES-A to SynthPEDES-B +10.0",
    ]
    assert all(line.startswith(("CSKT, fp32", "CSKT, bf16")) for line in lines)
    folder = grid_file(tmp_path, "transfer", "CSKT", 9, 50.0, **other)
    table = results.transfer_table(results.read_grid(folder, "transfer"))
    assert set(table["training data"]) == {"88888888", "99999999"} and len(table) == 5
    assert results.transfer_table(results.read_grid(tmp_path, "transfer")).empty


@pytest.mark.parametrize("name", ["selection", "selected", "data_version", "precision"])
def test_a_record_of_an_older_format_is_refused(name, tmp_path):
    path = run_file(tmp_path, "old")
    record = json.loads(path.read_text())
    record.pop(name)
    path.write_text(json.dumps({**record, "selection_split": "val"}))
    with pytest.raises(CSKTError, match=rf"old.json lacks {name}; delete it and run again"):
        results.read_run_file(path)


@pytest.mark.parametrize(
    ("hardware", "config", "kind"),
    [
        ({"device": "x86_64", "platform": "Linux-6.1-x86_64-with-glibc2.36"}, {}, "cpu"),
        ({"device": "arm", "platform": "macOS-14.5-arm64-arm-64bit"}, {"device": "auto"}, "cpu"),
        (
            {
                "device": "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel",
                "platform": "Windows-10",
            },
            {},
            "cpu",
        ),
        (
            {"device": "NVIDIA H100 80GB HBM3", "platform": "Linux-6.1-x86_64-with-glibc2.36"},
            {},
            "cuda",
        ),
        ({"device": "anything", "platform": "Linux"}, {"device": "cpu"}, "cpu"),
    ],
)
def test_the_kind_of_a_device(hardware, config, kind):
    assert settings.device_kind({"hardware": hardware, "config": config}) == kind
