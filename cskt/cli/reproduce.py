"""Commands about many runs: reproduce trains the rows of a grid, verify compares one run with the
committed ones."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from cskt import parallel
from cskt.cli.common import DataRoot, Pretrained, Settings, log_to_stderr, train_config
from cskt.cli.train import train_and_report
from cskt.config import MINI, REAL_DATASETS, SYNTHETIC_DATASETS, TrainConfig
from cskt.data.datasets import PersonRetrievalDataset, load_dataset
from cskt.errors import ConfigurationError, CSKTError, RunError
from cskt.files import file_name, make_folder, write_atomically, write_json
from cskt.report.grids import BENCHMARK, GRIDS, TRANSFER, Rows, grid_rows
from cskt.report.reproduced import MEASURE, committed_interval
from cskt.runs import QUERIES, Run, run_name, transfer_record, weights_fingerprint

log = logging.getLogger(__name__)
Records = dict[str, dict[str, Any]]  # name of a record's file, without .json -> the record


@dataclass(frozen=True)
class PlannedRun:
    """One training of a grid: the label of its row, its settings, and the data sets that its model
    is tested on besides its own (None: no transfer is asked for)."""

    row: str
    config: TrainConfig
    others: list[PersonRetrievalDataset] | None

    @property
    def name(self) -> str:
        return run_name(self.config)

    def is_recorded(self, folder: Path) -> bool:
        """Whether ``folder`` holds every record that this run would leave there."""
        if self.others is None:
            names = [self.name]
        else:
            names = [_transfer_name(self.name, other) for other in self.others]
        recorded = [(folder / f"{name}.json").is_file() for name in names]
        return bool(recorded) and all(recorded)


def reproduce(
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
    records: Annotated[Path, Option(help="Each run's record is copied here.")] = Path(
        "book/results/runs"
    ),
    missing: Annotated[
        bool, Option("--missing", help="Leave out what has a record of its name there already.")
    ] = False,
    jobs: Annotated[
        int, Option(min=1, help="Runs at a time; more than one: in processes of one thread each.")
    ] = 1,
) -> None:
    """Train every row of a grid on every data set; finished runs are kept, interrupted ones
    continue.

    All rows of one seed come before the next seed, so that an interrupted call leaves whole seeds.
    Each run's record is written as it finishes, and how each query ranked beside it (.npz). A run
    that fails does not stop the others. The benchmark on real data is run twice, the epoch chosen
    on val and, as the release does it, on test. ``transfer`` trains the benchmark's rows and tests
    each model on the other data sets.
    """
    names = _dataset_names(datasets, data_root)
    if not backbone:
        backbone = MINI if set(names) <= set(SYNTHETIC_DATASETS) else TrainConfig().backbone
    options = {"data_root": data_root, "backbone": backbone, "pretrained": pretrained}
    rows = _rows(grid, methods, backbone)
    for changes in rows.values():  # a wrong setting is said before any data set is read or rendered
        train_config(changes, {**options, "dataset": names[0]}, settings)
    folder = make_folder(records if grid == BENCHMARK else records / grid.replace(" ", "-"))
    loaded = {name: load_dataset(name, data_root) for name in names}
    planned = _plan(grid, rows, loaded, seeds, options, settings or [])
    if missing:
        planned = _without_recorded(planned, folder)
    _train_all(planned, folder, grid, jobs)


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


def _plan(
    grid: str,
    rows: Rows,
    loaded: dict[str, PersonRetrievalDataset],
    seeds: int,
    options: dict[str, Any],
    settings: list[str],
) -> list[PlannedRun]:
    """All runs of a grid, those of seed 0 first."""
    planned = []
    for seed in range(seeds):
        for name, dataset in loaded.items():
            others = None
            if grid == TRANSFER:
                others = [other for other_name, other in loaded.items() if other_name != name]
            for row, changes in rows.items():
                untrained = changes.get("method") == "zero-shot"
                if untrained and seed > 0:  # neither a seed nor an epoch changes it
                    continue
                chosen = {**options, "dataset": name, "seed": seed}
                for selection in _selections(grid, dataset, untrained, settings):
                    chosen["selection"] = selection
                    config = train_config(changes, chosen, settings)
                    planned.append(PlannedRun(row, config, others))
    return planned


def _selections(
    grid: str, dataset: PersonRetrievalDataset, untrained: bool, settings: list[str]
) -> list[str | None]:
    """By which rules the epoch of a row is chosen, a run for each; None is the default."""
    given = any(setting.startswith("selection=") for setting in settings)
    two_splits = not dataset.synthetic and dataset.val is not dataset.test
    if given or grid != BENCHMARK or not two_splits:
        return [None]
    return ["val"] if untrained else ["val", "test"]


def _without_recorded(planned: list[PlannedRun], folder: Path) -> list[PlannedRun]:
    missing = [run for run in planned if not run.is_recorded(folder)]
    skipped = len(planned) - len(missing)
    typer.echo(f"{skipped} of {len(planned)} runs have a record in {folder} and are skipped")
    return missing


def _train_all(planned: list[PlannedRun], folder: Path, grid: str, jobs: int) -> None:
    """Train, write the records as the runs finish, and say at the end which ones failed."""
    arguments = [(run, jobs > 1) for run in planned]
    failures = []
    cut_off = 0
    with contextlib.closing(parallel.completed(_train_planned, arguments, jobs)) as outcomes:
        for index, outcome in outcomes:
            run = planned[index]
            if isinstance(outcome, BrokenProcessPool):
                cut_off += 1
            elif isinstance(outcome, Exception):
                failures.append(_failure(run.name, outcome))
            else:
                place = {} if grid == BENCHMARK else {"grid": grid, "row": run.row}
                _write_records(folder, outcome, run, place)
    failed = len(failures) + cut_off
    if cut_off:
        failures.append(
            f"{cut_off} were cut off when a worker process was ended from outside (too little "
            f"memory for --jobs {jobs}?), call again to continue"
        )
    if failures:
        raise RunError(f"{failed} of {len(planned)} runs failed: {'; '.join(failures)}.")


def _train_planned(planned: PlannedRun, beside: bool) -> tuple[Run, Records]:
    """Train; the run and its records. ``beside``: in a process beside others."""
    if beside:
        log_to_stderr()
        run = train_and_report(planned.config, prefix=f"{planned.name}: ", progress=False)
    else:
        run = train_and_report(planned.config)
    if planned.others is None:
        return run, {run.folder.name: run.record}
    transfers = {}
    for other in planned.others:
        transfers[_transfer_name(run.folder.name, other)] = transfer_record(run, other)
    return run, transfers


def _transfer_name(name: str, dataset: PersonRetrievalDataset) -> str:
    return f"{name}-on-{file_name(dataset.name)}"


def _write_records(
    folder: Path, outcome: tuple[Run, Records], planned: PlannedRun, place: dict[str, str]
) -> None:
    """The records of a run into ``folder``, and its queries beside its own; ``place`` says where in
    a grid it stands."""
    from cskt.report.card import public_record

    run, records = outcome
    if planned.others is None:
        queries = (run.folder / QUERIES).read_bytes()
        write_atomically(folder / f"{run.folder.name}.npz", queries)
    for name, record in records.items():
        write_json(folder / f"{name}.json", {**public_record(record), **place})


def _failure(name: str, error: Exception) -> str:
    """What went wrong with a run; of a fault in the code the log has the traceback."""
    if isinstance(error, CSKTError):
        return f"{name}: {str(error).rstrip('.')}"
    log.error("%s failed.", name, exc_info=error)
    reason = " ".join(str(error).split())
    return f"{name}: {type(error).__name__}: {reason}".rstrip(".")


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
