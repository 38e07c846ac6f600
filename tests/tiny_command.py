"""``python -m tests.tiny_command ...``: the command line ``cskt ...`` where open_clip knows the
tiny backbone, whose configuration lies in the folder ``$TINY_BACKBONE``."""

import os
from pathlib import Path

import open_clip

from cskt.cli.main import main
from tests.tiny_runs import BACKBONE

if __name__ == "__main__":
    open_clip.add_model_config(Path(os.environ["TINY_BACKBONE"]) / f"{BACKBONE}.json")
    main()
