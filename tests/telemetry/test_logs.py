import json
import logging
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from app.telemetry.logs import configure_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    configure_logging("error")


def lines(captured: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in captured.splitlines()]


def test_off_a_terminal_there_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "auto")
    structlog.get_logger("app.some").info("something_happened", number=5, text="a\nb")
    (line,) = lines(capsys.readouterr().err)
    assert line["event"] == "something_happened"
    assert (line["number"], line["text"]) == (5, "a\nb")
    assert (line["level"], line["logger"]) == ("info", "app.some")
    assert str(line["timestamp"]).endswith("Z")


def test_on_a_terminal_there_is_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logging("info", "auto")
    structlog.get_logger().info("something_happened", number=5)
    told = capsys.readouterr().err
    assert "something_happened" in told
    assert not told.startswith("{")


def test_text_has_no_colours_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    structlog.get_logger().warning("something_happened", number=5)
    told = capsys.readouterr().err
    assert "something_happened" in told
    assert "number=5" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("style", ["json", "console"])
def test_nobody_forges_a_line(capsys: pytest.CaptureFixture[str], style: Literal["json", "console"]) -> None:
    configure_logging("info", style)
    structlog.get_logger().info("something_happened", text="x\n2026-01-01 [info] forged")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger()
    for level, expected in (("debug", 4), ("info", 3), ("warning", 2), ("error", 1)):
        configure_logging(level, "json")
        log.debug("d")
        log.info("i")
        log.warning("w")
        log.error("e")
        assert len(lines(capsys.readouterr().err)) == expected


def test_libraries_speak_through_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logging.getLogger("uvicorn.error").info("Application startup %s.", "complete")
    logging.getLogger("somebody.else").warning("careful")
    first, second = lines(capsys.readouterr().err)
    assert (first["event"], first["logger"]) == ("Application startup complete.", "uvicorn.error")
    assert (second["event"], second["level"]) == ("careful", "warning")


def test_what_would_tell_urls_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("debug", "json")
    logging.getLogger("uvicorn.access").info("GET /attest?nonce=00")
    logging.getLogger("httpx").info("HTTP Request: GET https://kds/vcek/v1/Milan/00")
    assert capsys.readouterr().err == ""
    assert not logging.getLogger("uvicorn.access").hasHandlers()  # what uvicorn asks
    logging.getLogger("httpx").warning("trouble")
    assert len(lines(capsys.readouterr().err)) == 1


def fail() -> None:
    nonce = "c2Vj" + "cmV0"
    raise ValueError("this is told" + nonce[:0])


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_tells_no_local_variables(
    capsys: pytest.CaptureFixture[str], style: Literal["json", "console"]
) -> None:
    configure_logging("info", style)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
    told = capsys.readouterr().err
    assert "this is told" in told
    assert "c2VjcmV0" not in told


def test_it_may_be_configured_again(capsys: pytest.CaptureFixture[str]) -> None:
    others = list(logging.getLogger().handlers)
    for _ in range(3):
        configure_logging("info", "json")
    assert len(logging.getLogger().handlers) <= len(others) + 1
    structlog.get_logger().info("once")
    assert len(lines(capsys.readouterr().err)) == 1
