"""``python -m tests.tiny_command FOLDER ...``: the command line ``cskt ...`` where open_clip knows
the tiny backbone, whose configuration lies in FOLDER."""

import sys
from pathlib import Path

import open_clip

from cskt.cli.main import main
from tests.tiny_runs import BACKBONE

if __name__ == "__main__":
    open_clip.add_model_config(Path(sys.argv.pop(1)) / f"{BACKBONE}.json")
    main()
