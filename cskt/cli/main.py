"""The command line ``python -m cskt``: all commands by name, and what happens when one fails.

The commands import what only they need when they are called: ``--help`` waits for no gallery, no
figure and no renderer.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from cskt import __version__
from cskt.cli import compare, data, reproduce, robustness, search, train
from cskt.cli.common import log_to_stderr
from cskt.errors import CSKTError, RunStopped
from cskt.files import printable

STOPPED = 75  # sysexits' EX_TEMPFAIL: try again, which a scheduler may requeue

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("plan")(reproduce.plan)
app.command("record")(reproduce.record)
app.command("verify")(reproduce.verify)
app.command("evaluate")(train.evaluate)
app.command("compare")(compare.compare)
app.command("robustness")(robustness.robustness)
app.command("export")(train.export)
app.command("import-checkpoint")(train.import_checkpoint)
app.command("index")(search.index)
app.command("search")(search.search)
app.command("render")(data.render)
app.command("verify-data")(data.verify_data)
app.command("pretrain-mini")(data.pretrain_mini)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"cskt {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, Option("--version", callback=_print_version, is_eager=True, help="Print it and stop.")
]


@app.callback()
def options(version: Version = False) -> None:
    """Cross-modal person retrieval with CSKT."""


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2, a training that was
    stopped and can go on exit code :data:`STOPPED`."""
    log_to_stderr()
    try:
        app(prog_name="cskt")
    except RunStopped as stopped:
        typer.echo(f"cskt: {stopped}", err=True)
        raise SystemExit(STOPPED) from None
    except CSKTError as error:
        typer.echo(f"cskt: error: {printable(str(error))}", err=True)
        raise SystemExit(2) from None
