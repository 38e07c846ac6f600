"""Voila for the search demo, on this machine only: with a token, for a few visitors at a time.

Each visitor's page has a process of its own, with the model. Without bounds any page of the web
could start such processes by mere requests, and those of closed pages would stay.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import tornado.web
from traitlets import Bool, Integer
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.tornado.handler import TornadoVoilaHandler

OWN = ("none", "same-origin")  # Sec-Fetch-Site of an address that was typed, and of our own page
FULL = """<!doctype html><html lang="en"><meta charset="utf-8"><title>The demo is full</title>
<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="20">
<style>:root {{ color-scheme: light dark; font: 16px system-ui }} body {{ margin: 3em auto;
max-width: 32em; padding: 0 1em }}</style><h1>The demo is full</h1><p>It serves {most} pages at a
time, since each of them needs memory. Close one that you do not need; this page tries again every
20 seconds.</p></html>"""


def refuse_foreign(request: Any) -> None:
    """Raise 403 for what a page from elsewhere asks for; browsers say so, and scripts have the
    token."""
    if request.headers.get("Sec-Fetch-Site", "none") not in OWN:
        raise tornado.web.HTTPError(403, "Asked for by a page from elsewhere; type the address.")


class DemoPage(TornadoVoilaHandler):
    """The page, for as many visitors as there is room for."""

    starting = asyncio.Lock()

    async def prepare(self) -> None:
        refuse_foreign(self.request)
        await super().prepare()

    @tornado.web.authenticated
    async def get(self, path: str | None = None) -> None:
        most = self.settings["most_visitors"]
        pieces = self.get_generator(path=path)
        async with self.starting:  # of two that come at once, the second finds the first's process
            if len(self.kernel_manager.list_kernel_ids()) >= most:
                self.set_status(503)
                self.set_header("Retry-After", "20")
                self.set_header("Content-Type", "text/html")
                self.finish(FULL.format(most=most))
                return
            first = await anext(pieces, "")
        self.write(first)
        self.flush()
        async for piece in pieces:
            self.write(piece)
            self.flush()


class ClosedPage(VoilaShutdownKernelHandler):
    """A page that closes ends its process. It cannot send the usual proof against forged requests,
    but its browser says that it is ours."""

    def check_xsrf_cookie(self) -> None:
        refuse_foreign(self.request)


class Health(tornado.web.RequestHandler):
    """How many visitors there are, for scripts that wait for the demo; starts nothing."""

    def get(self) -> None:
        visitors = len(self.settings["kernel_manager"].list_kernel_ids())
        self.write({"visitors": visitors, "most": self.settings["most_visitors"]})


class DemoServer(Voila):
    """Voila with these pages."""

    auto_token = Bool(True, allow_none=True, config=True)
    most_visitors = Integer(4, config=True, help="Pages at a time.")

    def init_settings(self) -> dict[str, Any]:
        settings = super().init_settings()
        settings["most_visitors"] = self.most_visitors
        return settings

    def init_handlers(self) -> list:
        ours = {TornadoVoilaHandler: DemoPage, VoilaShutdownKernelHandler: ClosedPage}
        handlers = [("/health", Health)]
        for address, handler, *rest in super().init_handlers():
            handlers.append((address, ours.get(handler, handler), *rest))
        return handlers

    def listen(self) -> None:
        asyncio.get_event_loop().call_soon(self._say_address)  # which is listened to by then
        super().listen()

    def _say_address(self) -> None:
        token = self.identity_provider.token
        print(f"The demo: http://127.0.0.1:{self.port}/?token={token} (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    sys.exit(DemoServer.launch_instance())
