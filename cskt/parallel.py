"""Work side by side: each piece in a process of one thread."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any

import torch


def completed(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], jobs: int = 1
) -> Generator[tuple[int, Any], None, None]:
    """Call ``function(*arguments[i])`` for every i; yield (i, what it returned or the exception it
    raised).

    With ``jobs`` 1 in this process, in order; else in ``jobs`` processes of one thread each, begun
    in order, yielded as they finish. ``function``, ``arguments`` and results must then be
    picklable, and ``function`` must stand in a module that a new process can import. The processes
    end with the iterator, with an exception such as KeyboardInterrupt, and with this process
    however it ends.
    """
    if jobs > 1:
        yield from _in_processes(function, arguments, jobs)
        return
    for index, values in enumerate(arguments):
        try:
            result = function(*values)
        except Exception as error:
            result = error
        yield index, result


def _in_processes(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], jobs: int
) -> Generator[tuple[int, Any], None, None]:
    others = set(multiprocessing.active_children())
    # Spawned, not forked: torch's threads and a GPU do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    workers = min(jobs, max(1, len(arguments)))
    executor = ProcessPoolExecutor(workers, spawn, _begin)
    try:
        indices: dict[Future, int] = {}
        for index, values in enumerate(arguments):
            indices[executor.submit(function, *values)] = index
        for future in as_completed(indices):
            error = future.exception()
            yield indices[future], future.result() if error is None else error
    except BaseException:
        # Ctrl-C, or the caller has had enough: nobody waits for what is under way.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _begin() -> None:
    """Before a worker's first piece."""
    # Of libraries that are loaded later, and of processes started from here.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    # A terminal sends Ctrl-C to all: the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next piece for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
