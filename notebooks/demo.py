"""Serve the search demo on this machine: ``python notebooks/demo.py`` (``make demo``).

Trains the run that it shows if there is none, and fills its galleries, in the terminal, where one
sees how far it is; then hands over to Voila (``demo_server.py``), which shows ``demo.ipynb``
without code.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import Any

import papermill

from cskt.config import MINI, TrainConfig
from cskt.errors import CSKTError

ROOT = Path(__file__).resolve().parents[1]


def prepare(parameters: dict[str, Any], port: int) -> Path:
    """Train and index what the demo shows, and write the notebook with these parameters; returns
    where."""
    from cskt.search.app import gallery_demo, run_demo
    from cskt.training import train

    if "gallery" in parameters:
        shown = gallery_demo(parameters["gallery"])
    else:
        config = TrainConfig.for_backbone(**{"backbone": MINI, **parameters})
        run = train(config, on_epoch=say_epoch)
        print(f"run: {run.folder}", flush=True)
        shown = run_demo(run)
    for name, gallery in shown.galleries.items():
        print(f"{name}: {len(gallery):,} images", flush=True)
        gallery.close()  # the demo's own process is to serve it
    copy = ROOT / "runs" / f"demo-{port}.ipynb"
    copy.parent.mkdir(exist_ok=True)
    papermill.execute_notebook(
        ROOT / "notebooks" / "demo.ipynb", copy, parameters, prepare_only=True
    )
    return copy


def say_epoch(row: dict[str, Any]) -> None:
    """Print how far the training is."""
    recall = f"{row['split']} R@1 {row['R@1']:.2f}"
    print(f"epoch {row['epoch']}: {recall}, {row['seconds']:.0f} s", flush=True)


def command(notebook: Path, port: int) -> list[str]:
    """What serves a notebook, to this machine only."""
    return [
        sys.executable,
        str(Path(__file__).with_name("demo_server.py")),
        str(notebook),
        "--no-browser",
        "--Voila.ip=127.0.0.1",
        f"--port={port}",
        "--Voila.port_retries=0",
        f"--Voila.config_file_paths={ROOT / 'notebooks'}",
    ]


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status where nothing can be served."""
    parser = argparse.ArgumentParser(
        description="Search in a gallery, in the browser, on this machine."
    )
    parser.add_argument(
        "--gallery", help="one made by python -m cskt index; default the test images of a run"
    )
    parser.add_argument("--dataset", default="SynthPEDES-A")
    parser.add_argument("--data-root", help="folder of a real data set, or of your own")
    parser.add_argument("--backbone", help=f"default {MINI}")
    parser.add_argument("--pretrained", help="the backbone's weights: a tag or a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8866)
    chosen = vars(parser.parse_args(arguments))
    port = chosen.pop("port")
    given = {name: value for name, value in chosen.items() if value}
    for name in ("gallery", "data_root"):
        if name in given and "://" not in given[name]:
            given[name] = os.path.abspath(given[name])
    if not is_free(port):  # before minutes of training
        print(f"demo: port {port} is taken; choose another with --port.", file=sys.stderr)
        return 1
    os.chdir(ROOT)
    try:
        notebook = prepare(given, port)
    except CSKTError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    os.execv(sys.executable, command(notebook, port))


if __name__ == "__main__":
    sys.exit(main())
