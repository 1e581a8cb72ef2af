"""The application that `servers.web` serves: today the pages of digest links; the console will stand beside them.

A link's page can be fetched by anything that follows links in mail, so GET changes nothing; the button on it POSTs.
Nothing is cached, framed, or told to other sites, and no script runs.
"""

import asyncio
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.quarantine.links import LinkAction, LinkDesk, Opened, Stale

WAIT_S = 8.0  # for a release to be settled, before the page says that it will be
_LOOK_S = 0.2
_HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-robots-tag": b"noindex, nofollow",
    b"cache-control": b"no-store",
}


_TEMPLATES = Environment(
    loader=PackageLoader("gateway.admin"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    auto_reload=False,
)
# Read when this is imported, which is before root is given away.
_PAGES = {name: _TEMPLATES.get_template(name) for name in ("link.html", "done.html", "stale.html")}
_STYLE = Path(__file__).with_name("static").joinpath("style.css").read_text(encoding="utf-8")


def make_app(desk: LinkDesk) -> ASGIApp:
    pages = Pages(desk)
    app = Starlette(
        routes=[
            Route("/quarantine/{token}", pages.show, methods=["GET"]),
            Route("/quarantine/{token}", pages.act, methods=["POST"]),
            Route("/static/style.css", pages.style, methods=["GET"]),
        ],
        exception_handlers={404: pages.missing, 405: pages.missing},
    )
    app.router.redirect_slashes = False  # a redirect would carry the token wherever the Host field says
    return SafeHeaders(app)


class SafeHeaders:
    """On every answer, an error's too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS.items()]
            await send(message)

        await self._app(scope, receive, send_safely)


class Pages:
    def __init__(self, desk: LinkDesk) -> None:
        self._desk = desk

    async def style(self, request: Request) -> Response:
        return Response(_STYLE, media_type="text/css")

    async def show(self, request: Request) -> Response:
        found = await asyncio.to_thread(self._desk.look, request.path_params["token"])
        if isinstance(found, Stale):
            return self._stale(found)
        return self._page("link.html", found)

    async def act(self, request: Request) -> Response:
        found = await asyncio.to_thread(self._desk.act, request.path_params["token"])
        if isinstance(found, Stale):
            return self._stale(found)
        refusal: str | None = None
        is_waiting = False
        if found.link.action is LinkAction.RELEASE:
            is_waiting = not await self._is_settled(found)
            refusal = await asyncio.to_thread(self._desk.refusal, found.link)
        return self._page("done.html", found, is_waiting=is_waiting, refusal=refusal)

    async def missing(self, request: Request, error: Exception) -> Response:
        return self._stale(Stale.UNKNOWN)

    async def _is_settled(self, found: Opened) -> bool:
        deadline = time.monotonic() + WAIT_S
        while not await asyncio.to_thread(self._desk.is_settled, found.link):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _page(self, template: str, found: Opened, **more: object) -> Response:
        is_release = found.link.action is LinkAction.RELEASE
        return HTMLResponse(_PAGES[template].render(kept=found.kept, shown=found.shown, is_release=is_release, **more))

    def _stale(self, reason: Stale) -> Response:
        text = _PAGES["stale.html"].render(reason=reason.value)
        return HTMLResponse(text, status_code=404 if reason is Stale.UNKNOWN else 410)
