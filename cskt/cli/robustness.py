"""``robustness``: what runs lose when descriptions and pictures are worse than their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from cskt.cli.common import DataRoot
from cskt.data.datasets import load_dataset
from cskt.files import make_folder, write_json
from cskt.runs import Run

ROW = "{:<20}{:>8}{:>8.2f}   {:.2f} to {:.2f}"


def robustness(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    output: Annotated[
        Path | None, Option("--json", metavar="OUT", help="Folder for a json file of each run.")
    ] = None,
    synonyms: Annotated[
        Path | None, Option(help="csv: word, synonym; what may stand for what in a caption.")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Rank the test split again with words dropped, shuffled or swapped and with blurred, dark,
    noisy, small, compressed or half hidden images; R@1 with 95 % intervals over people."""
    from cskt.analysis import robustness as analysis

    table = analysis.read_synonyms(synonyms) if synonyms else {}
    finished = [Run.load(folder) for folder in runs]
    if output is not None:
        make_folder(output)
    from cskt.report.card import public_record  # tables are needed only here

    wordings: dict[tuple[str, str | None], analysis.Wordings] = {}  # of SynthPEDES, take a while
    for run in finished:
        root = data_root or run.config.data_root
        data = load_dataset(run.config.dataset, root)
        place = (data.name, root)
        if place not in wordings:
            wordings[place] = analysis.wordings_of(data)
        typer.echo(f"{run.folder}:")
        record = analysis.robustness_record(run, data, wordings[place], table, _print_row)
        as_it_is = record["metrics"]["text_to_image"]
        typer.echo(ROW.format("as it is", "", as_it_is["R@1"], *as_it_is["intervals"]["R@1"]))
        if output is not None:
            write_json(output / f"{run.folder.name}.json", public_record(record))


def _print_row(row: dict[str, Any]) -> None:
    level = str(row["level"])
    typer.echo(ROW.format(row["corruption"], level, row["R@1"], *row["interval"]))
