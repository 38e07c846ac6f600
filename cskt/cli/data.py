"""Commands about data: render, verify-data, pretrain-mini."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from cskt.cli.common import DATASET_HELP
from cskt.config import SYNTHETIC_DATASETS
from cskt.errors import ConfigurationError


def render(
    names: Annotated[
        list[str] | None, typer.Argument(help="SynthPEDES domains; default all three.")
    ] = None,
    output: Annotated[Path | None, Option(help="Parent folder; default the cache.")] = None,
) -> None:
    """Render SynthPEDES domains in their official layouts and print their folders."""
    from cskt.synthetic import synthetic_dataset

    unknown = sorted(set(names or ()) - set(SYNTHETIC_DATASETS))
    if unknown:
        raise ConfigurationError(
            f"{', '.join(unknown)} cannot be rendered; choose from {', '.join(SYNTHETIC_DATASETS)}."
        )
    for name in names or SYNTHETIC_DATASETS:
        typer.echo(synthetic_dataset(name, output))


def verify_data(
    name: Annotated[str, typer.Argument(help=DATASET_HELP)],
    root: Annotated[Path, typer.Argument(help="Folder of the data set, or its parent.")],
    as_json: Annotated[
        bool, Option("--json", help="One json object with everything instead of the table.")
    ] = False,
    deep: Annotated[
        bool,
        Option(
            "--deep",
            help="Decode every image too, on all cores, and check the cache of decoded images.",
        ),
    ] = False,
) -> None:
    """Say what is missing, malformed, damaged or duplicated in a copy of a data set, and what is
    odd about its captions; exit code 1 on a fault."""
    from tqdm import tqdm

    from cskt.data.verify import CONTEXT, verify
    from cskt.model.backbone import clip_tokenizer

    encode = clip_tokenizer(context_length=CONTEXT).encode
    progress = functools.partial(tqdm, leave=False, disable=None)  # None: on a terminal only
    report = verify(name, root, encode, deep, progress)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        typer.echo(report.to_text())
    if report.faults:
        raise typer.Exit(1)


def pretrain_mini(
    context: typer.Context,
    samples: Annotated[int | None, Option(help="Image-caption pairs seen in all.")] = None,
    images: Annotated[int | None, Option(help="Images rendered for it.")] = None,
    output: Annotated[Path | None, Option(help="Folder for the weights and the run file.")] = None,
    seed: int | None = None,
) -> None:
    """Pre-train the embedded cskt-mini backbone on the generic corpus."""
    from cskt.environment import environment
    from cskt.synthetic import pretrain

    given = {name: value for name, value in context.params.items() if value is not None}
    typer.echo(pretrain.pretrain_mini(**given, environment=environment("cpu")))
