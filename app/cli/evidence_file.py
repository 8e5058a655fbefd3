"""Evidence documents, as files and as answers of an attester."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.api import strict_json
from app.api.evidence_document import EvidenceDocument, QuoteDocument
from app.cli.failure import InputError, about
from app.cli.files import display_name, read_file
from app.errors import EvidenceError
from app.wire.evidence import Evidence, QuoteEvidence

MAX_SIZE = 1 << 20

Document = TypeVar("Document", bound=BaseModel)


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
    return _validated(EvidenceDocument, value).to_evidence()


def quote_from(value: dict[str, Any]) -> QuoteEvidence:
    """A quote from a decoded JSON value, such as the answer of `POST /quote`; other members are ignored.

    Raises:
        EvidenceError: members that do not fit; names the first place.
    """
    known = {name: member for name, member in value.items() if name in QuoteDocument.model_fields}
    return _validated(QuoteDocument, known).to_evidence()


def _validated(document: type[Document], value: Any) -> Document:
    try:
        return document.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        pointer = "".join(f"/{part}" for part in fault["loc"])
        raise EvidenceError(pointer, fault["msg"].removeprefix("Value error, ")) from error
