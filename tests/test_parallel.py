"""Pieces of work in processes side by side: results, errors, and processes that end with their
parent."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from cskt import parallel

SCRIPT = """
import os, sys, time
from cskt import parallel

def piece(folder, number):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(600)

if __name__ == "__main__":
    list(parallel.completed(piece, [(sys.argv[1], number) for number in range(3)], 2))
"""


def divide(number, divisor):
    return {
        "quotient": number // divisor,
        "process": os.getpid(),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_result_and_every_error_comes_back(jobs):
    outcomes = dict(parallel.completed(divide, [(6, 2), (1, 0), (8, 2)], jobs))
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert outcomes[0]["quotient"] == 3
    assert outcomes[2]["quotient"] == 4
    for index in (0, 2):
        if jobs == 1:
            assert outcomes[index]["process"] == os.getpid()
        else:
            assert outcomes[index]["process"] != os.getpid()
            assert outcomes[index]["threads"] == 1
            assert outcomes[index]["OMP_NUM_THREADS"] == "1"


def test_one_job_works_in_order_and_on_demand():
    done = []
    with contextlib.closing(parallel.completed(done.append, [(1,), (2,), (3,)])) as outcomes:
        assert next(outcomes) == (0, None)
        assert done == [1]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent to processes")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, sent):
    """Interrupted, and killed outright."""
    script, begun = tmp_path / "script.py", tmp_path / "begun"
    script.write_text(SCRIPT)
    begun.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(parallel.__file__).parents[1]), *sys.path]),
    }
    parent = subprocess.Popen(
        [sys.executable, script, begun],
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=hears_interrupts,
    )
    try:
        wait_for(lambda: len(list(begun.iterdir())) == 2)
        workers = [psutil.Process(int(path.name)) for path in begun.iterdir()]
        parent.send_signal(sent)
        assert parent.wait(60) != 0
        wait_for(lambda: not any(alive(worker) for worker in workers))
        assert len(list(begun.iterdir())) == 2, "the third piece was not begun"
    finally:
        parent.kill()


def hears_interrupts():
    """What a shell starts in the background ignores Ctrl-C, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(holds):
    """Processes start and end slowly on a busy machine."""
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened within two minutes")
