"""`/docs`: the interface on one plain page, made of the OpenAPI document. It loads nothing from anywhere."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse

from windlass.server.page_files import SECURITY

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Windlass: the interface</title></head><body><main>
<h1>The interface</h1>
<p>The same as a document for programs: <a href="/openapi.json">openapi.json</a>. Any client of OpenAI's works with
this address and <code>/v1</code> as its base URL.</p>
"""
_TAIL = "</main></body></html>\n"


def add_docs(app: FastAPI) -> None:
    """Adds the route."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers=dict(SECURITY))


def docs_page(document: Mapping[str, Any]) -> str:
    """The page."""
    return _HEAD + "".join(_operations(document)) + "".join(_schemas(document)) + _TAIL


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"<section><h2>{method.upper()} {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>"
            body = operation.get("requestBody", {}).get("content", {})
            yield "".join(f"<p>Takes {escape(kind)}: {_named(each['schema'])}.</p>" for kind, each in body.items())
            yield "<ul>" + "".join(map(_answer, operation["responses"].items())) + "</ul></section>\n"


def _answer(told: tuple[str, Mapping[str, Any]]) -> str:
    status, answer = told
    kinds = ", ".join(_named(each.get("schema", {})) for each in answer.get("content", {}).values())
    return f"<li>{escape(status)}: {escape(answer['description'])} {kinds}</li>"


def _schemas(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Forms</h2>\n"
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        yield f'<details id="{escape(name)}"><summary>{escape(name)}</summary><pre>{text}</pre></details>\n'


def _named(schema: Mapping[str, Any]) -> str:
    name = escape(schema.get("$ref", "").rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>' if name else escape(str(schema.get("type", "")))
