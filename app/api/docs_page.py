"""The page at /docs: the OpenAPI document as one HTML page without scripts and without the network."""

import base64
import hashlib
import json
import re
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, JSONResponse

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: light-dark(#0b57d0, #8ab4f8) }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1.5rem 4rem }
h1 { margin-bottom: 0 } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line) }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: var(--soft); border-radius: 4px }
code { padding: .1em .3em } pre { padding: .8em 1em; overflow-x: auto } a { color: var(--accent) }
article { border: 1px solid var(--line); border-radius: 8px; padding: 0 1rem .5rem; margin: 1rem 0 }
article > h3 { display: flex; gap: .8rem; align-items: baseline; flex-wrap: wrap }
.method { color: var(--accent); font-weight: 700 }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0 }
tr { border-top: 1px solid var(--line) }
th { font-weight: 600 } summary { cursor: pointer; margin: .5rem 0 } .soft { opacity: .7 }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_REFERENCE = re.compile(r".*/")
_CODE = re.compile(r"`([^`]+)`")


def add_docs(app: FastAPI) -> None:
    """Serve the document and its page: what an application has when this is called."""
    document = app.openapi()
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    text, page = JSONResponse(document), HTMLResponse(docs_page(document), headers=headers)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return text

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page


def docs_page(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document of ours."""
    info = document["info"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    shared = document["components"]["responses"]
    schemas = document["components"]["schemas"]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])}</h1>",
            f'<p class="soft">version {escape(info["version"])} · ',
            '<a href="openapi.json">openapi.json</a></p>',
            _prose(info.get("description", "")),
            *(_group(tag, operations) for tag in _tags(operations)),
            "<h2>Answers on every path</h2>",
            _answers({_status(answer): answer for answer in shared.values()}),
            "<h2>Documents</h2>",
            *(_schema(name, schema) for name, schema in schemas.items()),
            "</body></html>",
        )
    )


def _tags(operations: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(operation["tags"][0] for _, _, operation in operations))


def _group(tag: str, operations: list[tuple[str, str, dict[str, Any]]]) -> str:
    articles = (
        _operation(method, path, operation)
        for method, path, operation in operations
        if operation["tags"][0] == tag
    )
    return f"<h2>{escape(tag.capitalize())}</h2>{''.join(articles)}"


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    anchor = escape(operation["operationId"], quote=True)
    body = operation.get("requestBody", {}).get("content", {})
    parameters = operation.get("parameters", [])
    return "".join(
        (
            f'<article id="{anchor}"><h3><span class="method">{method}</span>',
            f"<code>{escape(path)}</code><span>{escape(operation['summary'])}</span></h3>",
            _prose(operation.get("description", "")),
            _table(("parameter", "type", "meaning"), (_parameter(parameter) for parameter in parameters)),
            *(f"<p>Body: {_type(content['schema'])}</p>" for content in body.values()),
            _answers(operation["responses"]),
            "</article>",
        )
    )


def _parameter(parameter: dict[str, Any]) -> tuple[str, str, str]:
    note = "" if parameter.get("required") else ' <span class="soft">optional</span>'
    name = f"<code>{escape(parameter['name'])}</code>{note}"
    return name, _type(parameter["schema"]), _inline(parameter.get("description", ""))


def _answers(responses: dict[str, Any]) -> str:
    """A table of answers, without those that are on every path and referred to."""
    rows = (
        (escape(status), _documents(answer), _inline(answer["description"]))
        for status, answer in sorted(responses.items())
        if "$ref" not in answer
    )
    return _table(("status", "document", "meaning"), rows)


def _documents(answer: dict[str, Any]) -> str:
    return "<br>".join(
        f'{_type(content.get("schema", {}))}<br><span class="soft">{escape(media_type)}</span>'
        for media_type, content in answer.get("content", {}).items()
    )


def _status(answer: dict[str, Any]) -> str:
    """The status of a problem, which its example tells."""
    (content,) = answer["content"].values()
    (example,) = content["examples"].values()
    return str(example["value"]["status"])


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", []))
    members = (
        (
            f"<code>{escape(member)}</code>"
            + ("" if member in required else ' <span class="soft">optional</span>'),
            _type(of),
            _inline(of.get("description", "")),
        )
        for member, of in schema.get("properties", {}).items()
    )
    examples = "".join(
        f"<pre>{escape(json.dumps(example, indent=2, ensure_ascii=False))}</pre>"
        for example in schema.get("examples", [])
    )
    values = f"<p>{_type(schema)}</p>" if "enum" in schema else ""
    return (
        f'<article id="schema-{escape(name, quote=True)}"><h3>{escape(name)}</h3>'
        f"{_prose(schema.get('description', ''))}{values}"
        f"{_table(('member', 'type', ''), members)}{examples}</article>"
    )


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = _REFERENCE.sub("", schema["$ref"])
        return f'<a href="#schema-{escape(name, quote=True)}">{escape(name)}</a>'
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    how = schema.get("contentEncoding") or schema.get("format")
    return escape(f"{kind} ({how})" if how else kind)


def _table(heads: tuple[str, ...], rows: Any) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _prose(text: str) -> str:
    """Paragraphs; `code` is the only markup that our descriptions use."""
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part.strip())


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))
