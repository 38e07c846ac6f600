"""The command line ``python -m cskt``: all commands by name, and what happens when one fails.

The commands import what only they need when they are called: ``--help`` waits for no gallery, no
figure and no renderer.
"""

from __future__ import annotations

import typer

from cskt import cli_data, cli_reproduce, cli_search, cli_train
from cskt.cli_common import log_to_stderr
from cskt.errors import CSKTError

app = typer.Typer(
    help="Cross-modal person retrieval with CSKT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(cli_train.train)
app.command("reproduce")(cli_reproduce.reproduce)
app.command("verify")(cli_reproduce.verify)
app.command("evaluate")(cli_train.evaluate)
app.command("export")(cli_train.export)
app.command("import-checkpoint")(cli_train.import_checkpoint)
app.command("index")(cli_search.index)
app.command("search")(cli_search.search)
app.command("render")(cli_data.render)
app.command("verify-data")(cli_data.verify_data)
app.command("pretrain-mini")(cli_data.pretrain_mini)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    log_to_stderr()
    try:
        app(prog_name="cskt")
    except CSKTError as error:
        typer.echo(f"cskt: error: {error}", err=True)
        raise SystemExit(2) from None
