"""What an unfinished run keeps in its folder to go on from, and how it is asked to stop.

The newest state and the one before it are kept: where the newest one is damaged, the run goes on
from the other, to the same result.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from cskt import files
from cskt.errors import RunError
from cskt.files import write_atomically

STATE = "state.pt"
PREVIOUS = "state.previous.pt"

logger = logging.getLogger(__name__)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Store ``state`` as the newest one; the newest so far becomes the one before.

    Raises :class:`cskt.errors.ResourceError` where the disk is full or the folder cannot be
    written; what was stored stays as it was.
    """

    def save(path: Path) -> None:
        torch.save(state, path)
        if (folder / STATE).is_file():
            os.replace(folder / STATE, folder / PREVIOUS)

    with full_disk_named(folder, STATE):
        write_atomically(folder / STATE, save, durable=True)


def full_disk_named(folder: Path, name: str = "") -> contextlib.AbstractContextManager[None]:
    """Within the block, a file (called ``name``) that cannot be written into the run ``folder`` is
    a :class:`ResourceError`; whatever was stored before stays, and the run can go on from it."""
    advice = "run the same command: it goes on from the last stored step"
    return files.full_disk_named(folder, name, advice)


def read_state(folder: Path) -> dict[str, Any] | None:
    """The newest state that can be read, None where none was stored.

    Raises :class:`cskt.errors.RunError` where none of those that were stored can be read.
    """
    damaged: list[str] = []
    for name in (STATE, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds for a damaged file
            damaged.append(f"{path} cannot be read ({type(error).__name__})")
            continue
        for fault in damaged:
            logger.warning("%s; going on from %s, the one before.", fault, name)
        return state
    if damaged:
        raise RunError(f"{'; '.join(damaged)}; delete it to start the run anew.")
    return None


def remove_state(folder: Path) -> None:
    """Forget what was stored: the run is finished, or begins anew."""
    for name in (STATE, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


class StopRequest:
    """Within the block, Ctrl-C and SIGTERM are noted instead of obeyed, so that a training can
    finish its step and store it; a second one ends the process as it would have.

    ``asked``: the name of the signal that came, "" before. Signals that were ignored stay so, and
    outside the main thread, where python handles no signals, nothing changes.
    """

    def __init__(self) -> None:
        self.asked = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
