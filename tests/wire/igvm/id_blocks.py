"""ID blocks of IGVM files, made from what sev-snp-measure makes for QEMU's command line."""

import base64
import struct
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sevsnpmeasure import id_block as peer

from tests.wire.igvm.files import Piece, piece


@dataclass(frozen=True)
class Owner:
    """An ID key and an author's key, as files and as the peer's digests of them."""

    id_key: Path
    author_key: Path

    @classmethod
    def made_in(cls, folder: Path) -> "Owner":
        keys = []
        for name in ("id", "author"):
            path = folder / f"{name}.pem"
            path.write_bytes(
                ec.generate_private_key(ec.SECP384R1()).private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            keys.append(path)
        return cls(*keys)

    def digests(self) -> tuple[bytes, bytes]:
        found = [
            peer.pub_to_digest(peer.load_private_key_from_pem_file(str(key)))
            for key in (self.id_key, self.author_key)
        ]
        return found[0], found[1]

    def sign(self, digest: bytes, *, author: bool = True, mask: int = 1) -> Piece:
        """The header for a digest, guest policy 0x30000; everything but its layout is the peer's."""
        text = peer.snp_calc_id_block(digest, str(self.id_key), str(self.author_key))
        block, auth = (
            base64.b64decode(part.split("=", 1)[1]) for part in text.splitlines()[0].rstrip(",").split(",id-")
        )
        signed = peer.IdAuth.from_buffer_copy(auth)
        sections = [
            bytes(signed.block_sig)[:144],
            _key(bytes(signed.id_key)),
            bytes(signed.id_key_sig)[:144] if author else bytes(144),
            _key(bytes(signed.author_key)) if author else bytes(152),
        ]
        head = struct.pack("<IBxxx", mask, author) + block[:88] + struct.pack("<II", 1, 1)
        return piece(0x30B, head + b"".join(sections))


def _key(raw: bytes) -> bytes:
    return raw[:4] + bytes(4) + raw[4:148]
