"""The page at `/`: files built before and shipped in the package, held in memory and given as they are."""

import mimetypes
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from fastapi import FastAPI
from starlette.responses import Response

SECURITY: Mapping[str, str] = MappingProxyType({
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
})  # fmt: skip
"""Sent with everything that a browser shows: it runs no script but those files, loads from nowhere else, and makes no
element out of a text, so that an answer stays one."""
_PLAIN = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Windlass</title>
<p>This build has no page. The interface is at <a href="/docs">/docs</a>.</p></html>"""


def built_page() -> dict[str, bytes]:
    """Path below `/` -> content of every file of the page; a plain one in a build that was made without it."""
    folder = Path(str(files("windlass.server"))) / "page"
    found = dict(_walked(folder, "")) if folder.is_dir() else {}
    return found if "index.html" in found else {"index.html": _PLAIN}


def add_page(app: FastAPI, page: Mapping[str, bytes]) -> None:
    """Adds a route a file."""
    for path, content in page.items():
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        _add(app, "/" if path == "index.html" else f"/{path}", content, kind)


def _add(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    async def given() -> Response:
        return Response(content, media_type=kind, headers={**SECURITY, "Cache-Control": "no-cache"})

    app.add_api_route(path, given, include_in_schema=False)


def _walked(folder: Path, below: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walked(entry, f"{below}{entry.name}/")
        else:
            found.append((f"{below}{entry.name}", entry.read_bytes()))
    return found
