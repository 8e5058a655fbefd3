import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from app.api.docs_page import docs_page
from tests.api.service import Service


class Page(HTMLParser):
    """Tags, attributes and text of a page; raises on tags that do not match."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html(cautious: Service) -> str:
    return cautious.get("/docs").text


def test_the_page_needs_nothing_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert not page.tags & {"script", "link", "img", "iframe", "form", "object", "base"}
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "style"
        if name in {"href", "src"}:
            assert value == "openapi.json" or str(value).startswith("#")
    assert "://" not in "".join(str(value) for _, name, value in page.attributes if name == "href")


def test_the_policy_allows_its_own_style_and_nothing_else(cautious: Service, html: str) -> None:
    answer = cautious.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )


def test_everything_of_the_document_is_on_the_page(cautious: Service, html: str) -> None:
    document = cautious.get("/openapi.json").json()
    text = Page(html).text
    for path, methods in document["paths"].items():
        assert path in text
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in html
            assert operation["summary"] in text
            for parameter in operation.get("parameters", []):
                assert parameter["name"] in text
    for name, schema in document["components"]["schemas"].items():
        assert f'id="schema-{name}"' in html
        for member in schema.get("properties", {}):
            assert member in text
    for anchor in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html


def test_text_is_text() -> None:
    evil = "<script>alert(1)</script>\"'&`<b>`"
    document = {
        "info": {"title": evil, "version": evil, "description": evil},
        "paths": {
            f"/{evil}": {
                "get": {
                    "tags": [evil],
                    "operationId": evil,
                    "summary": evil,
                    "description": evil,
                    "parameters": [{"name": evil, "schema": {"type": evil}, "description": evil}],
                    "responses": {
                        evil: {"description": evil, "content": {evil: {"schema": {"enum": [evil, 1]}}}}
                    },
                }
            }
        },
        "components": {
            "responses": {},
            "schemas": {
                evil: {
                    "description": evil,
                    "examples": [{evil: evil}],
                    "properties": {evil: {"const": evil}, "b": {"items": {}, "type": "array"}},
                },
                "c": {"enum": [evil], "properties": {"d": {"$ref": f"#/components/schemas/{evil}"}}},
            },
        },
    }
    page = Page(docs_page(document))
    assert not page.tags & {"script", "b"}
    assert evil.split("`", maxsplit=1)[0] in page.text


def test_the_page_is_the_same_for_everybody(cautious: Service, html: str) -> None:
    assert cautious.get("/docs", headers={"Host": "evil.example", "X-Forwarded-Prefix": "/x"}).text == html
