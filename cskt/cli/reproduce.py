"""Commands about many runs: plan writes down the rows of a grid, which the workflow trains; record
copies what came out; verify compares one run with the committed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from typer import Option

from cskt.cli.common import DataRoot, Pretrained, Settings, train_config
from cskt.cli.train import train_and_report
from cskt.config import MINI, REAL_DATASETS, SYNTHETIC_DATASETS, TrainConfig
from cskt.data.datasets import load_dataset
from cskt.errors import ConfigurationError
from cskt.files import file_name, make_folder, write_atomically, write_json
from cskt.report.grids import BENCHMARK, GRIDS, TRANSFER, Rows, grid_rows
from cskt.report.reproduced import MEASURE, committed_interval
from cskt.runs import QUERIES, Run, run_name, transfer_record, weights_fingerprint

PLAN = "runs.json"
Planned = dict[str, Any]  # name, row and seed of a run, and the names of the records it leaves


def plan(
    datasets: Annotated[
        str | None,
        Option(
            help="Names with commas between; default the three real ones with --data-root, else "
            "SynthPEDES."
        ),
    ] = None,
    grid: Annotated[str, Option(help=f"What varies: {', '.join([*GRIDS, TRANSFER])}.")] = BENCHMARK,
    methods: Annotated[
        str | None, Option(help="Rows of the benchmark or transfer, commas between.")
    ] = None,
    seeds: Annotated[int, Option(min=1, help="Seeds 0 to SEEDS-1 of each.")] = 3,
    data_root: DataRoot = None,
    backbone: Annotated[
        str | None, Option(help=f"Default {MINI} for SynthPEDES, the paper's for real data.")
    ] = None,
    pretrained: Pretrained = None,
    settings: Settings = None,
    records: Annotated[Path, Option(help="Each run's record is to be copied here.")] = Path(
        "book/results/runs"
    ),
    missing: Annotated[
        bool, Option("--missing", help="Leave out what has a record of its name there already.")
    ] = False,
    output: Annotated[Path, Option(help="Folder of the plan.")] = Path("_build/plan"),
) -> None:
    """Write down the trainings of a grid: every row on every data set, those of one seed before the
    next seed.

    ``snakemake records`` trains them (make reproduce does both). The folder holds runs.json and a
    configuration for each run. The benchmark on real data is run twice, the epoch chosen on val
    and, as the release does it, on test. ``transfer`` trains the benchmark's rows and tests each
    model on the other data sets.
    """
    names = _dataset_names(datasets, data_root)
    if not backbone:
        backbone = MINI if set(names) <= set(SYNTHETIC_DATASETS) else TrainConfig().backbone
    options = {"data_root": data_root, "backbone": backbone, "pretrained": pretrained}
    rows = _rows(grid, methods, backbone)
    for changes in rows.values():  # a wrong setting is said before any data set is read
        train_config(changes, {**options, "dataset": names[0]}, settings)
    place = "" if grid == BENCHMARK else grid.replace(" ", "-")
    folder = make_folder(records / place)
    planned = _planned(grid, rows, names, seeds, options, settings or [], make_folder(output))
    total = len(planned)
    if missing:
        planned = [run for run in planned if not _is_recorded(run, folder)]
        skipped = total - len(planned)
        typer.echo(f"{skipped} of {total} runs have a record in {folder} and are skipped")
    left = []
    for run in planned:
        left += run["records"]
    contents = {
        "grid": grid,
        "place": place or grid,
        "records": folder.as_posix(),
        "others": {file_name(name): name for name in names},
        "runs": planned,
        "left": left,
    }
    write_json(output / PLAN, contents)
    typer.echo(f"{len(planned)} runs are planned in {output}")


def _dataset_names(datasets: str | None, data_root: str | None) -> list[str]:
    if datasets:
        return datasets.split(",")
    return list(REAL_DATASETS if data_root else SYNTHETIC_DATASETS)


def _rows(grid: str, methods: str | None, backbone: str) -> Rows:
    """The rows of ``grid``; with ``methods`` those of its methods, under the grid's own labels."""
    rows = grid_rows(grid, backbone)
    if not methods:
        return rows
    if grid not in (BENCHMARK, TRANSFER):
        raise ConfigurationError(
            f"--methods belongs to the grids {BENCHMARK} and {TRANSFER}; the rows of {grid} are "
            "its own."
        )
    labels = {changes.get("method", "cskt"): label for label, changes in rows.items()}
    asked = {}
    for method in methods.split(","):
        asked[labels.get(method, method)] = {"method": method}
    return asked


def _planned(
    grid: str,
    rows: Rows,
    names: list[str],
    seeds: int,
    options: dict[str, Any],
    settings: list[str],
    output: Path,
) -> list[Planned]:
    """All runs of a grid, those of seed 0 first; the configuration of each is written into
    ``output``."""
    two_splits = {name: _has_two_splits(name, options["data_root"]) for name in names}
    planned: list[Planned] = []
    for seed in range(seeds):
        for name in names:
            others = [other for other in names if other != name] if grid == TRANSFER else None
            for row, changes in rows.items():
                untrained = changes.get("method") == "zero-shot"
                if untrained and seed > 0:  # neither a seed nor an epoch changes it
                    continue
                chosen = {**options, "dataset": name, "seed": seed}
                twice = grid == BENCHMARK and two_splits[name]
                for selection in _selections(twice, untrained, settings):
                    chosen["selection"] = selection
                    config = train_config(changes, chosen, settings)
                    planned.append(_planned_run(row, config, others, output))
    return planned


def _planned_run(row: str, config: TrainConfig, others: list[str] | None, output: Path) -> Planned:
    """One training of a grid; ``others``: the data sets that its model is tested on instead of its
    own."""
    name = run_name(config)
    write_atomically(output / f"{name}.yaml", yaml.safe_dump(config.to_dict()))
    records = [name]
    if others is not None:
        records = [_transfer_name(name, other) for other in others]
    return {"name": name, "row": row, "seed": config.seed, "records": records}


def _has_two_splits(name: str, data_root: str | None) -> bool:
    """Whether an epoch of the paper's setting may be chosen on val or on test."""
    if name in SYNTHETIC_DATASETS:  # not rendered for an answer that is known
        return False
    dataset = load_dataset(name, data_root)
    return dataset.val is not dataset.test


def _selections(twice: bool, untrained: bool, settings: list[str]) -> list[str | None]:
    """By which rules the epoch of a row is chosen, a run for each; None is the default."""
    given = any(setting.startswith("selection=") for setting in settings)
    if given or not twice:
        return [None]
    return ["val"] if untrained else ["val", "test"]


def _is_recorded(run: Planned, folder: Path) -> bool:
    """Whether ``folder`` holds every record that a run would leave there."""
    recorded = [(folder / f"{name}.json").is_file() for name in run["records"]]
    return bool(recorded) and all(recorded)


def _transfer_name(name: str, dataset: str) -> str:
    return f"{name}-on-{file_name(dataset)}"


def record(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    folder: Annotated[Path, typer.Argument(help="Its record is written here.")],
    grid: Annotated[str, Option(help="The grid that the run belongs to.")] = BENCHMARK,
    row: Annotated[str, Option(help="Its row there.")] = "",
    on: Annotated[
        str | None, Option(help="Test the model on this data set: a record of the transfer.")
    ] = None,
) -> None:
    """Copy a run's record for the tables, without private paths, and beside it how each query
    ranked (.npz)."""
    from cskt.report.card import public_record

    finished = Run.load(run)
    name, contents = run.name, finished.record
    make_folder(folder)
    if on is None:
        write_atomically(folder / f"{name}.npz", (run / QUERIES).read_bytes())
    else:
        name = _transfer_name(name, on)
        contents = transfer_record(finished, load_dataset(on, finished.config.data_root))
    place = {} if grid == BENCHMARK else {"grid": grid, "row": row}
    write_json(folder / f"{name}.json", {**public_record(contents), **place})


def verify(
    dataset: Annotated[
        str, Option(help=f"One of {', '.join(SYNTHETIC_DATASETS)}.")
    ] = "SynthPEDES-A",
    records: Annotated[Path, Option(help="The committed run files.")] = Path("book/results/runs"),
    output: Annotated[Path, Option(help="Run folder; what it holds is replaced.")] = Path(
        "runs/verify"
    ),
) -> None:
    """Train CSKT anew, seed 0, and say whether its R@1 is within the committed runs'; exit code 1
    where it is not.

    Two minutes on two CPU cores. Exit code 2: the run files hold nothing to compare with.
    """
    from cskt.report.run_files import read_run_file

    if dataset not in SYNTHETIC_DATASETS:
        raise ConfigurationError(
            f"{dataset} cannot be verified; choose one of {', '.join(SYNTHETIC_DATASETS)}."
        )
    config = TrainConfig.mini(dataset, seed=0, precision="fp32", device="cpu", output=str(output))
    committed = [read_run_file(path) for path in sorted(records.glob("*.json"))]
    version = getattr(load_dataset(dataset), "version", None)
    interval = committed_interval(committed, config, version, weights_fingerprint(config))
    # An earlier run must not stand in for one on this machine.
    run = train_and_report(config, overwrite=True)
    value = run.record["metrics"]["text_to_image"][MEASURE]
    typer.echo(interval.sentence(value))
    raise typer.Exit(0 if interval.holds(value) else 1)
