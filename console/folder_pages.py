"""The console of finished runs: its routes, and its server in the command's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from gatort.runtime.errors import RecordingError

from .access import Access
from .address import Address
from .app import make_app
from .finished import RunsFolder, read_recording, read_report
from .listening import listening, server

FILES: Final = {"/": "runs.html", "/runs.js": "runs.js", "/plots.js": "plots.js"}


class FolderPages:
    """Pages that show the finished runs of a folder."""

    def __init__(self, folder: RunsFolder) -> None:
        self._folder = folder

    @property
    def routes(self) -> list[BaseRoute]:
        """Routes of the pages."""
        return [
            Route("/runs.json", self._rows),
            Route("/report/{name}", self._report),
            Route("/recording/{name}", self._recording),
            Route("/picture/{name}", self._picture),
        ]

    async def _rows(self, _: Request) -> Response:
        return _json(await run_in_threadpool(self._folder.rows))

    async def _report(self, request: Request) -> Response:
        path = self._folder.file(request.path_params["name"], "report")
        report = await run_in_threadpool(read_report, path) if path is not None else None
        return _absent() if report is None else _json(report)

    async def _recording(self, request: Request) -> Response:
        path = self._folder.file(request.path_params["name"], "recording")
        if path is None:
            return _absent()
        try:
            return _json(await run_in_threadpool(read_recording, path))
        except RecordingError as error:
            return PlainTextResponse(str(error), 422)

    async def _picture(self, request: Request) -> Response:
        path = self._folder.file(request.path_params["name"], "picture")
        return _absent() if path is None else FileResponse(path, media_type="image/png")


def serve_folder(folder: RunsFolder, address: Address, say: Callable[[str], None]) -> None:
    """Serve the pages until a signal ends the process.

    Args:
        folder: folder of the runs.
        address: address to listen on.
        say: receives the URL.

    Raises:
        ConfigError: the address cannot be bound.
    """
    listener, address = listening(address)
    access = Access(address)
    served = server(make_app(access, FILES, FolderPages(folder).routes))
    say(access.invite())
    asyncio.run(served.serve([listener]))


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _absent() -> Response:
    return PlainTextResponse("no such file in the folder", 404)
