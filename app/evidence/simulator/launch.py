"""What the host and the guest owner settled when the simulated guest was launched."""

import hashlib
from dataclasses import dataclass, field
from functools import partial

from app.wire.bits import GuestPolicy


def simulated_digest(what: str) -> bytes:
    """A SHA-384 that anybody can recompute, and that no real image can have."""
    return hashlib.sha384(f"svsm-attest SIMULATED {what}".encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The fields of a report that stay what they were at launch.

    The default is a COCONUT-SVSM image under QEMU's policy 0x30000 (SMT allowed, nothing else),
    started with a signed ID block, whose family and image id igvmmeasure leaves zero.
    """

    policy: GuestPolicy = field(default_factory=partial(GuestPolicy.parse, 0x30000))
    measurement: bytes = simulated_digest("COCONUT-SVSM image")
    host_data: bytes = simulated_digest("host data")[:32]
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 2
    id_key_digest: bytes = simulated_digest("ID key")
    author_key_digest: bytes = simulated_digest("author key")
