"""``compare``: whether two methods can be told apart, from stored ranks alone."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from typer import Option

from cskt.errors import ConfigurationError

RUNS = "Run folder or run file; several seeds of one method with commas between."


def compare(
    run_a: Annotated[str, typer.Argument(help=RUNS)],
    run_b: Annotated[str, typer.Argument(help=RUNS)],
    as_json: Annotated[bool, Option("--json", help="One json object instead of text.")] = False,
    resamples: Annotated[int, Option(help="Bootstrap samples.")] = 2000,
) -> None:
    """The paired difference of RUN_A less RUN_B on the same queries, with 95 % intervals.

    Needs no model and no images: a run keeps how each query ranked the gallery.
    """
    from cskt.analysis import compare as compare_runs

    result = compare_runs(_sources(run_a), _sources(run_b), resamples)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    typer.echo(result.table.to_string(float_format="{:.3f}".format))
    found = f"both {result.both:.0f}, neither {result.neither:.0f}"
    typer.echo(
        f"Right image first, of {result.queries} queries: only {result.a} {result.only_a:.0f}, "
        f"only {result.b} {result.only_b:.0f}, {found}"
    )
    typer.echo(result.sentence())


def _sources(runs: str) -> list[str]:
    sources = []
    for run in runs.split(","):
        if not run.strip():
            raise ConfigurationError(
                f"{runs!r} holds an empty name; give runs with commas between."
            )
        sources.append(run.strip())
    return sources
