"""A session in which everything passes, to be changed in one place at a time."""

from dataclasses import dataclass
from typing import Any

from tests.acceptance.both_roles import BothRoles, objections
from tests.acceptance.tool_guest import Json, Key, ToolGuest, b64, unb64


def flipped(raw: bytes, offset: int, mask: int = 1) -> bytes:
    return raw[:offset] + bytes([raw[offset] ^ mask]) + raw[offset + 1 :]


def patched(raw: bytes, offset: int, part: bytes) -> bytes:
    return raw[:offset] + part + raw[offset + len(part) :]


@dataclass(frozen=True)
class Good:
    """A session in which everything passes."""

    roles: BothRoles
    guest: ToolGuest
    ek: Key
    ak: Key
    nonce: bytes
    evidence: Json

    def activation(self) -> Json:
        """A fresh answer to a fresh challenge."""
        assert (self.guest.ek("ecc"), self.guest.ak()) == (self.ek, self.ak)
        return self.guest.activate(self.roles.challenge(self.ek.public, self.ak.public))

    def verdict(self, changed: Json | None = None, **more: Any) -> Json:
        more = more or {"activation": self.activation()}
        return self.roles.verify(self.nonce, changed or self.evidence, **more)

    def objections(self, changed: Json | None = None, **more: Any) -> dict[str, str]:
        return objections(self.verdict(changed, **more))

    def quote(self, **changed: bytes) -> Json:
        """The evidence with other parts of its quote."""
        parts = {name: b64(part) for name, part in changed.items()}
        return {**self.evidence, "quote": {**self.evidence["quote"], **parts}}

    def part(self, name: str) -> bytes:
        return unb64(self.evidence["quote"][name])
