"""``feedback``: what simulated users gain by marking hits as right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from cskt.cli.common import DataRoot
from cskt.data.datasets import load_dataset
from cskt.files import make_folder, write_json
from cskt.runs import Run

HEAD = "marks  round   R@1  (as asked)   mAP  (as asked)  found  (as asked)"
ROW = "{:>5}{:>7}{:>6.1f}{:>12.1f}{:>6.1f}{:>12.1f}{:>7.1f}{:>12.1f}"


def feedback(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    output: Annotated[
        Path | None, Option("--json", metavar="OUT", help="Folder for a json file of each run.")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Let simulated users mark the first 1, 3 or 5 hits a round as right or wrong and search again,
    for 3 rounds: R@1 and mAP on the pictures not seen yet, beside the query as it was asked, and
    the share of the right pictures that have been seen, in percent."""
    from cskt.analysis import simulated_users

    finished = [Run.load(folder) for folder in runs]
    if output is not None:
        make_folder(output)
    from cskt.report.card import public_record  # tables are needed only here

    for run in finished:
        data = load_dataset(run.config.dataset, data_root or run.config.data_root)
        typer.echo(f"{run.folder}:\n{HEAD}")
        record = simulated_users.feedback_record(run, data, _print_row)
        if output is not None:
            write_json(output / f"{run.folder.name}.json", public_record(record))


def _print_row(row: dict[str, Any]) -> None:
    numbers = []
    for measure in ("R@1", "mAP", "found"):
        numbers += [row[measure], row[f"{measure} before"]]
    typer.echo(ROW.format(row["marks"], row["round"], *numbers))
