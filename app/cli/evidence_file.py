"""Evidence documents, as files and as answers of an attester."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.api import strict_json
from app.api.evidence_document import EvidenceDocument
from app.cli.failure import InputError, about
from app.cli.files import display_name, read_file
from app.errors import EvidenceError
from app.wire.evidence import Evidence

MAX_SIZE = 1 << 20


def read_evidence(path: Path) -> Evidence:
    """The evidence in a JSON file of at most 1 MiB (`-`: standard input).

    Raises:
        InputError: the file cannot be read or holds no JSON.
        InFileError: it holds another document, or evidence that is not well formed.
    """
    return read_evidence_bytes(read_file(path, MAX_SIZE), display_name(path))


def read_evidence_bytes(raw: bytes, name: str) -> Evidence:
    """The evidence in a JSON text; `name` is what errors call it.

    Raises:
        InputError, InFileError: as `read_evidence`.
    """
    try:
        value = strict_json.loads(raw)
    except ValueError as error:
        raise InputError(
            name,
            str(error),
            "An evidence document is wanted here; `svsm-attest inspect` says what a file is.",
        ) from error
    with about(name):
        return evidence_from(value)


def evidence_from(value: Any) -> Evidence:
    """Evidence from a decoded JSON value.

    Raises:
        EvidenceError: another document, or members that do not fit; names the first place.
    """
    try:
        return EvidenceDocument.model_validate(value).to_evidence()
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        pointer = "".join(f"/{part}" for part in fault["loc"])
        raise EvidenceError(pointer, fault["msg"].removeprefix("Value error, ")) from error
