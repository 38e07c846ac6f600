"""Work in processes that are killed at random moments and begun again.

The processes are forked from one that has imported torch and cskt already, so that what is killed
is the work and not the start of Python.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 240.0  # seconds of one piece of work: beyond that it hangs

Work = Callable[..., None]
Check = Callable[[Path], None]


def killed_at_random(
    work: Work, arguments: tuple[Any, ...], folder: Path, check: Check, kills: int, seed: int
) -> int:
    """Kill ``work(place, *arguments)`` so many times, at moments drawn by ``seed``, and begin it
    again in the same ``place``, a folder below ``folder``, until it ends undisturbed.

    ``check(place)`` is called of each place whose work has ended, first of one that was never
    disturbed. A place is given up for a new one when its work ends. Returns the number of places.
    """
    moments = random.Random(seed)
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir(parents=True)
    assert _ends_within(_nothing, (), LONGEST)  # what starts the others has started
    begin = time.monotonic()
    assert _ends_within(work, (undisturbed, *arguments), LONGEST), "it does not end"
    whole = time.monotonic() - begin
    check(undisturbed)
    killed = 0
    places = 0
    place = undisturbed
    ended = True
    while killed < kills or not ended:
        fresh = ended
        if fresh:
            places += 1
            place = folder / f"place-{places}"
            place.mkdir()
        begin = time.monotonic()
        patience = moments.uniform(0, whole) if killed < kills else LONGEST
        ended = _ends_within(work, (place, *arguments), patience)
        if ended:
            if fresh:  # the machine is less busy than before
                whole = time.monotonic() - begin
            check(place)
        else:
            assert killed < kills, f"{work.__name__} does not end"
            killed += 1
    return places


def _nothing() -> None:
    """Work that takes no time."""


def _ends_within(work: Work, arguments: tuple[Any, ...], seconds: float) -> bool:
    """Whether ``work(*arguments)``, in a process of its own, ends within so many seconds; else it
    is killed, with all that it started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cskt.training", "cskt.cli.train", "tests.killing"])
    process = context.Process(target=_alone, args=(work, arguments))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        assert process.pid is not None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet
            process.kill()
    process.join()
    code = process.exitcode
    process.close()
    assert code in (0, -signal.SIGKILL), f"{work.__name__} ended with code {code}"
    return code == 0


def _alone(work: Work, arguments: tuple[Any, ...]) -> None:
    """In the new process."""
    os.setsid()  # its children are killed with it
    work(*arguments)
