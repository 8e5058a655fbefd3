"""EK certificates in a TPM's own memory, written by us and read by tpm2-tools."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from app.errors import BackendError, TpmRefusedError
from app.tpm import handles
from app.tpm.client import Tpm
from app.tpm.ek_certificates import INDEXES, EkNvCause, store_ek_certificate
from app.tpm.nv import NvCommands
from app.tpm.transport import SocketTransport
from app.trust.certificates import der
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.template import creation_template
from tests.conftest import REPOSITORY
from tests.interop.software_tpm import SoftwareTpm, software_tpm
from tests.tpm.live import AK_P256, LiveTpm
from tests.trust.ek_ca import issue
from tests.wire.samples import COUNTING_EK

Template = str


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SoftwareTpm]:
    """A TPM that we and tpm2-tools talk to by turns."""
    with software_tpm(tmp_path) as running:
        yield running


@contextlib.contextmanager
def client(shared: SoftwareTpm) -> Iterator[Tpm]:
    with contextlib.closing(SocketTransport.tcp("127.0.0.1", shared.port)) as channel:
        tpm = Tpm(channel, timeout_s=30)
        yield tpm
        assert tpm.handles(handles.TRANSIENT) == ()


def ek_of(tpm: Tpm, template: Template) -> TpmtPublic:
    made = tpm.create_primary(handles.ENDORSEMENT, creation_template(template))
    with tpm.transient(made.handle):
        return TpmtPublic.parse(made.public)


def never(_: bytes) -> bool:
    raise AssertionError("nothing is to be replaced")


class Allowing:
    """Lets everything be replaced, and remembers what."""

    def __init__(self) -> None:
        self.replaced: list[bytes] = []

    def __call__(self, held: bytes) -> bool:
        self.replaced.append(held)
        return True


def put(tpm: Tpm, template: Template, certificate: bytes | None = None, **how: Any) -> bytes:
    ek = ek_of(tpm, template)
    certificate = certificate or der(issue(ek.encode()))
    how.setdefault("may_replace", never)
    assert store_ek_certificate(tpm, ek, certificate, **how) == INDEXES[template]
    return certificate


def test_tpm2_getekcertificate_finds_them(shared: SoftwareTpm) -> None:
    with client(shared) as tpm:
        rsa, ecc = put(tpm, "L-1"), put(tpm, "L-2")
    assert len(rsa) > 512  # takes more than one command
    shared.run("tpm2_getekcertificate", "-o", "rsa.der", "-o", "ecc.der")
    assert (shared.read("rsa.der"), shared.read("ecc.der")) == (rsa, ecc)
    shared.run("tpm2_createek", "-c", "ek.ctx", "-u", "ek.pem", "-G", "rsa", "-f", "pem")
    certified = x509.load_der_x509_certificate(rsa).public_key()
    assert load_pem_public_key(shared.read("ek.pem")) == certified


def test_the_commands_of_the_documentation_do_the_same(shared: SoftwareTpm) -> None:
    with client(shared) as tpm:
        ours = put(tpm, "L-1")
        public = tpm.nv_read_public(INDEXES["L-1"])
        tpm.nv_undefine(INDEXES["L-1"])
    shared.write("ek.der", ours)
    page = (REPOSITORY / "docs" / "ek-certificates.md").read_text()
    commands = [line for line in page.splitlines() if line.startswith("tpm2_")]
    assert len(commands) == 3
    for command in commands:
        shared.run("sh", "-e", "-c", command)
    assert shared.read("check.der") == ours
    with client(shared) as tpm:
        assert tpm.nv_read_public(INDEXES["L-1"]) == public
        put(tpm, "L-1", ours)  # there already


@pytest.mark.parametrize("template", INDEXES)
def test_each_template_has_an_index_that_everybody_may_read(shared: SoftwareTpm, template: Template) -> None:
    with client(shared) as tpm:
        written = put(tpm, template)
    index = f"0x{INDEXES[template]:08x}"
    for authority in (index, "o"):  # the index's own password, which is empty, and the owner's
        shared.run("tpm2_nvread", index, "-C", authority, "-o", "read")
        assert shared.read("read") == written
    shown = shared.run("tpm2_nvreadpublic", index)
    assert "ownerwrite|ownerread|authread|policyread|no_da|written" in shown
    assert f"size: {len(written)}" in shown


def test_the_same_again_is_left_alone(tpm: LiveTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = put(tpm, "L-2")
    monkeypatch.setattr(NvCommands, "nv_write", None)
    put(tpm, "L-2", certificate)


def test_a_newer_one_replaces_what_may_go(tpm: LiveTpm) -> None:
    old, allowing = put(tpm, "L-2"), Allowing()
    new = put(tpm, "L-2", may_replace=allowing)
    assert allowing.replaced == [old]
    assert tpm.nv_read(INDEXES["L-2"]) == new != old


def test_what_may_not_go_stays(tpm: LiveTpm) -> None:
    old = put(tpm, "L-2")
    with pytest.raises(BackendError, match="index 0x01c0000a holds something of somebody else") as refused:
        put(tpm, "L-2", may_replace=lambda _: False)
    assert refused.value.cause == EkNvCause.TAKEN
    assert "tpm2_nvundefine -C o 0x01c0000a" in refused.value.remedy
    assert tpm.nv_read(INDEXES["L-2"]) == old


def test_an_index_that_was_never_written_holds_nothing(tpm: LiveTpm) -> None:
    tpm.nv_define(INDEXES["L-2"], 3)
    allowing = Allowing()
    certificate = put(tpm, "L-2", may_replace=allowing)
    assert allowing.replaced == [b""]
    assert tpm.nv_read(INDEXES["L-2"]) == certificate


def test_only_the_tpm_s_own_ek_gets_one(tpm: LiveTpm) -> None:
    made = tpm.create_primary(handles.ENDORSEMENT, AK_P256)
    tpm.flush(made.handle)
    for public, reason in ((COUNTING_EK, "has another EK"), (made.public, "no template of the TCG")):
        with pytest.raises(BackendError, match=reason) as refused:
            store_ek_certificate(tpm, TpmtPublic.parse(public), b"x", may_replace=never)
        assert refused.value.cause == EkNvCause.OTHER_EK


def test_a_refusal_names_the_command(tpm: LiveTpm) -> None:
    ek = ek_of(tpm, "L-2")
    with pytest.raises(BackendError, match="the TPM refused: TPM2_NV_DefineSpace answered 0x") as refused:
        store_ek_certificate(tpm, ek, bytes(60_000), may_replace=never)
    assert refused.value.cause == EkNvCause.REFUSED


def test_a_tpm_that_does_not_say_what_is_there_gets_nothing(
    tpm: LiveTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TpmRefusedError("TPM2_NV_ReadPublic", 0x921, "TPM_RC_LOCKOUT")

    monkeypatch.setattr(NvCommands, "nv_read_public", refuse)
    with pytest.raises(BackendError, match="TPM2_NV_ReadPublic answered 0x921 TPM_RC_LOCKOUT"):
        put(tpm, "L-2")


def test_what_is_not_kept_is_told(tpm: LiveTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    write = NvCommands.nv_write
    monkeypatch.setattr(NvCommands, "nv_write", lambda self, index, data: write(self, index, data[::-1]))
    with pytest.raises(BackendError) as refused:
        put(tpm, "L-2")
    assert refused.value.cause == EkNvCause.NOT_KEPT
