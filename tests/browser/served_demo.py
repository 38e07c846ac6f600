"""The search demo as a server of its own, and how the browser tests use its page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
HOSTILE = '<img src=x onerror="window.hacked=1">'
SIDE_BY_SIDE = f"""import cskt
from cskt.search.app import RetrievalDemo
galleries = {{"CSKT": cskt.Gallery("cskt.db"), "zero-shot": cskt.Gallery("zero-shot.db")}}
truth = {{"a person in red": [0]}}
RetrievalDemo(galleries, ["a person in red", {HOSTILE!r}], truth, "synthetic")"""


@contextlib.contextmanager
def running(command: list, folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """A server that answers on the port, and ends with all that it has started."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            for _ in range(240):
                assert server.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.25)
            yield server
        finally:
            children = []
            if server.poll() is None:
                children = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGTERM)
            server.wait(30)
            _, alive = psutil.wait_procs(children, timeout=10)
            for child in alive:
                child.kill()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclasses.dataclass
class Served:
    """Where the demo is, as its server says, and the process."""

    address: str
    token: str
    process: subprocess.Popen

    def page(self, path: str) -> str:
        return f"{self.address}{path}?token={self.token}"

    def ask(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Status and text of an answer."""
        request = urllib.request.Request(self.address + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def visitors(self) -> int:
        return json.loads(self.ask("/health")[1])["visitors"]

    def wait_for_visitors(self, count: int) -> None:
        for _ in range(120):
            if self.visitors() == count:
                return
            time.sleep(0.25)
        raise AssertionError(f"{self.visitors()} visitors, not {count}")


def opened(page, address: str):
    """The page, once the demo is on it."""
    page.goto(
        address, wait_until="load", timeout=120_000
    )  # Voila's page is complete when the notebook has run
    page.get_by_label("Describe").wait_for(timeout=120_000)
    return page


def ask(page, text: str) -> None:
    """Type and press Enter; the heading follows."""
    page.get_by_label("Describe").fill(text)
    page.get_by_label("Describe").press("Enter")
    page.locator(".cskt-said b").get_by_text(text).wait_for()


def upload(page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search by picture").click()
    chooser.value.set_files(file)


def shows(page, count: int) -> None:
    """So many hits, once they are drawn."""
    page.wait_for_function(
        "count => document.querySelectorAll('.cskt-demo figure').length === count", arg=count
    )


def listening_addresses(pid: int) -> set[str]:
    """Of a server and all that it has started."""
    server = psutil.Process(pid)
    addresses = set()
    for process in [server, *server.children(recursive=True)]:
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                addresses.add(connection.laddr.ip.removeprefix("::ffff:"))
    return addresses
