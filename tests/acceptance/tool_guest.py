"""A VM whose attester is made of tpm2-tools on swtpm: nothing in it is ours.

What the tools cannot do are commands written out by hand, from the TCG TPM 2.0 Library, Part 3.
"""

import base64
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance import session
from tests.interop.software_tpm import ANSWERS_WITHIN_S, SoftwareTpm

RESTRICTED = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
P256 = "ecc256:ecdsa-sha256:null"
RSA = "rsa2048:rsassa-sha256:null"
EVERY = {"sha256": list(range(24))}

Banks = dict[str, list[int]]
Json = dict[str, Any]

_ENDORSEMENT = "4000000b"
_EMPTY_PASSWORD = "00000009 40000009 0000 00 0000"  # noqa: S105
_CHANGE_EPS = bytes.fromhex(f"8002 0000001b 00000124 4000000c {_EMPTY_PASSWORD}")
_ZEROS = bytes(32)
# TCG EK Credential Profile, template L-2
_EK_TEMPLATE = bytes.fromhex(
    "0023 000b 000300b2 0020 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
    " 0006 0080 0043 0010 0003 0010" + 2 * f" 0020 {_ZEROS.hex()}"
)
_AK_TEMPLATE = bytes.fromhex("0023 000b 00050072 0000 0010 0018 000b 0003 0010")  # up to `unique`


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@dataclass(frozen=True, slots=True)
class Key:
    """A key in the TPM: bare TPMT_PUBLIC and Name, both by the tools' word."""

    public: bytes
    name: bytes


@dataclass
class ToolGuest:
    """The tools' side of every exchange.

    `report` asks the security processor, at VMPL 0, with REPORT_DATA. The keys that were made last are
    those that are used.
    """

    tools: SoftwareTpm
    report: Callable[[bytes], bytes]
    _ek: str = field(default="rsa", init=False)

    def ek(self, kind: str = "rsa") -> Key:
        """rsa, ecc or ecc384: what the SVSM has as its manifest."""
        self._ek = kind
        self.tools.run("tpm2_createek", "-Q", "-G", kind, "-c", "ek.ctx", "-u", "ek", "-f", "tpmt")
        return self._key("ek")

    def ak(
        self, kind: str = P256, *, attributes: str = RESTRICTED, hierarchy: str = "e", unique: bytes = b""
    ) -> Key:
        """A primary key; `unique` as the tools read it."""
        more = ("-u", self.tools.write("unique", unique)) if unique else ()
        made = ("-C", hierarchy, "-G", kind, "-a", attributes, *more, "-c", "ak.ctx")
        self.tools.run("tpm2_createprimary", "-Q", *made)
        return self._key("ak")

    def _key(self, what: str) -> Key:
        context = f"{what}.ctx"
        self.tools.run("tpm2_readpublic", "-Q", "-c", context, "-f", "tpmt", "-o", what, "-n", "name")
        return Key(self.tools.read(what), self.tools.read("name"))

    def registers(self, pcrs: Banks) -> dict[str, dict[str, str]]:
        """What tpm2_pcrread reads."""
        found = {}
        for bank, numbers in pcrs.items():
            self.tools.run("tpm2_pcrread", "-Q", f"{bank}:{_listed(numbers)}", "-o", "values")
            raw = self.tools.read("values")
            size = len(raw) // len(numbers)
            values = [raw[start : start + size].hex() for start in range(0, len(raw), size)]
            found[bank] = dict(zip(map(str, numbers), values, strict=True))
        return found

    def quote(self, ak: Key, qualifying: bytes, pcrs: Banks = EVERY) -> Json:
        """The quote of tpm2_quote as evidence has it."""
        listed = "+".join(f"{bank}:{_listed(numbers)}" for bank, numbers in pcrs.items())
        said = ("-q", qualifying.hex(), "-m", "attest", "-s", "signature")
        self.tools.run("tpm2_quote", "-Q", "-c", "ak.ctx", "-l", listed, "-g", "sha256", *said)
        return {
            "ak_public": b64(ak.public),
            "attest": b64(self.tools.read("attest")),
            "signature": b64(self.tools.read("signature")),
            "pcrs": self.registers(pcrs),
        }

    def evidence(
        self, nonce: bytes, ek: bytes, ak: Key, pcrs: Banks = EVERY, *, report: bytes | None = None
    ) -> Json:
        """A session: the report first, and the quote to it."""
        if report is None:
            report = self.report(session.report_data(session.report_nonce(nonce, ak.name), ek))
        return evidence(report, ek, self.quote(ak, session.qualifying(nonce, ak.name, report), pcrs))

    def activate(self, challenge: Json) -> Json:
        """What tpm2_activatecredential takes out of a challenge, as `activation`."""
        self.tools.write("blob", unb64(challenge["tools_file"]))
        with self._use_of_ek() as allowed:
            keys = ("-c", "ak.ctx", "-C", "ek.ctx", *allowed, "-i", "blob", "-o", "secret")
            self.tools.run("tpm2_activatecredential", "-Q", *keys)
        return {"challenge": challenge["challenge"], "secret": b64(self.tools.read("secret"))}

    def certify(self, challenge: Json) -> Json:
        """What tpm2_certify says with the key that tpm2_import took from a challenge, as `activation`."""
        for name in ("public_area", "duplicate", "encrypted_seed"):
            raw = unb64(challenge[name])
            self.tools.write(name, len(raw).to_bytes(2, "big") + raw)
        blob = ("-u", "public_area", "-i", "duplicate", "-s", "encrypted_seed", "-r", "private")
        with self._use_of_ek() as allowed:
            self.tools.run("tpm2_import", "-Q", "-C", "ek.ctx", *allowed, *blob)
        with self._use_of_ek() as allowed:
            key = ("-u", "public_area", "-r", "private", "-c", "hmac.ctx")
            self.tools.run("tpm2_load", "-Q", "-C", "ek.ctx", *allowed, *key)
        said = ("-g", "sha256", "-o", "certified", "-s", "mac")
        self.tools.run("tpm2_certify", "-Q", "-c", "ak.ctx", "-C", "hmac.ctx", *said)
        return {
            "challenge": challenge["challenge"],
            "certify_info": b64(self.tools.read("certified")),
            "signature": b64(self.tools.read("mac")),
        }

    @contextlib.contextmanager
    def _use_of_ek(self) -> Iterator[tuple[str, ...]]:
        """What authorizes one use of the EK: a P-384 one has its empty password."""
        if self._ek == "ecc384":
            yield ()
            return
        self.tools.run("tpm2_startauthsession", "--policy-session", "-S", "session")
        try:
            self.tools.run("tpm2_policysecret", "-Q", "-S", "session", "-c", "e")
            yield ("-P", "session:session")
        finally:
            self.tools.run("tpm2_flushcontext", "session")

    def ek_with_a_leading_zero(self, attempts: int) -> Key | None:
        """Have the TPM change its seed until a coordinate of its P-256 EK starts with a zero byte."""
        with _commands(self.tools) as ask:
            for _ in range(attempts):
                ask(_CHANGE_EPS)
                if _starts_with_zero(_primary(ask, _EK_TEMPLATE)):
                    break
            else:
                return None
        return self.ek("ecc")

    def ak_with_a_leading_zero(self, attempts: int) -> Key | None:
        """The same of a P-256 attestation key, for which another `unique` is enough."""
        with _commands(self.tools) as ask:
            for number in range(attempts):
                x = number.to_bytes(32, "big")
                if _starts_with_zero(_primary(ask, _AK_TEMPLATE + b"\0\x20" + x + b"\0\x20" + _ZEROS)):
                    break
            else:
                return None
        room = bytes(128 - 32)  # the TSS's own TPMU_PUBLIC_ID: sizes are little-endian
        return self.ak(unique=b"\x20\0" + x + room + b"\x20\0" + _ZEROS + room)


def evidence(report: bytes, manifest: bytes, quote: Json) -> Json:
    """Evidence of a session, with nothing in it that a verifier does not need."""
    return {
        "report": b64(report),
        "manifest": b64(manifest),
        "binding": {"type": "session", "construction": "svsm-attest/session/1"},
        "quote": quote,
    }


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


Ask = Callable[[bytes], bytes]


@contextlib.contextmanager
def _commands(tools: SoftwareTpm) -> Iterator[Ask]:
    """The TPM's data channel, for commands that no tool sends."""
    with socket.create_connection(("127.0.0.1", tools.port), ANSWERS_WITHIN_S) as channel:

        def ask(command: bytes) -> bytes:
            channel.sendall(command)
            answer = channel.recv(4096)
            assert answer[6:10] == bytes(4), answer.hex()
            return answer

        yield ask


def _primary(ask: Ask, template: bytes) -> bytes:
    """The TPMT_PUBLIC of a primary key of the endorsement hierarchy, which is flushed again."""
    sized = len(template).to_bytes(2, "big") + template
    body = bytes.fromhex(f"{_ENDORSEMENT} {_EMPTY_PASSWORD} 0004 0000 0000") + sized + bytes(6)
    answer = ask(
        bytes.fromhex("8002") + (10 + len(body)).to_bytes(4, "big") + bytes.fromhex("00000131") + body
    )
    ask(bytes.fromhex("8001 0000000e 00000165") + answer[10:14])
    return answer[20 : 20 + int.from_bytes(answer[18:20], "big")]


def _starts_with_zero(public: bytes) -> bool:
    """Of a P-256 key's area, which ends in sized x and sized y."""
    return 0 in (public[-66], public[-32])
