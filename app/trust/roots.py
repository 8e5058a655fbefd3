"""The roots of trust: AMD's, pinned here, and whatever else an operator trusts explicitly.

A root is recognised by the SHA-256 of its certificate and of its key, both of which must match,
so it does not matter where the certificate itself comes from: evidence, a folder or the network.
Source of the certificates behind the pins: https://kdsintf.amd.com/vcek/v1/<line>/cert_chain
(AMD 57230); the digests were compared between independent projects.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

from cryptography.exceptions import UnsupportedAlgorithm

from app.errors import CertificateError
from app.trust.authorities import root_problems
from app.trust.certificates import certificate_digest, key_digest
from app.trust.names import is_simulated, root_line
from app.wire.product import ProductLine

if TYPE_CHECKING:
    from cryptography import x509

Origin = Literal["amd", "extra", "simulator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRoot:
    """A root in force: its digests (SHA-256, in hex) and why it is trusted.

    `simulated` holds for every root whose name says so, whatever its origin.
    """

    line: ProductLine
    name: str
    certificate_sha256: str
    key_sha256: str
    origin: Origin
    simulated: bool = False


AMD_ROOTS = (
    TrustedRoot(
        line=ProductLine.MILAN,
        name="ARK-Milan",
        certificate_sha256="69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        key_sha256="9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        origin="amd",
    ),
    TrustedRoot(
        line=ProductLine.GENOA,
        name="ARK-Genoa",
        certificate_sha256="4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        key_sha256="429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        origin="amd",
    ),
    TrustedRoot(
        line=ProductLine.TURIN,
        name="ARK-Turin",
        certificate_sha256="1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        key_sha256="4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
        origin="amd",
    ),
)


@dataclass(frozen=True, slots=True)
class TrustRoots:
    """The roots in force. `certificates` are data: trusted for their digests, not for being here."""

    roots: tuple[TrustedRoot, ...]
    certificates: "tuple[x509.Certificate, ...]" = field(default=(), compare=False)

    @classmethod
    def amd(cls) -> Self:
        """AMD's three published roots and nothing else."""
        return cls(AMD_ROOTS)

    def with_root(self, certificate: "x509.Certificate", origin: Literal["extra", "simulator"]) -> Self:
        """These roots and one more, whose product line its CN (ARK-<line>) tells.

        A root that is already in force keeps its origin; its certificate is kept as data.

        Raises:
            CertificateError: the certificate does not fit the profile of an ARK.
        """
        known = self.match(certificate)
        certificates = (*self.certificates, certificate)
        if known is not None:
            return replace(self, certificates=certificates)
        line = root_line(certificate.subject)
        problems = root_problems(certificate, amd=False)
        if line is None or problems:
            raise CertificateError("trust root", "; ".join(problem.why for problem in problems))
        root = TrustedRoot(
            line=line,
            name=f"ARK-{line}",
            certificate_sha256=certificate_digest(certificate),
            key_sha256=key_digest(certificate),
            origin=origin,
            simulated=origin == "simulator" or is_simulated(certificate.subject),
        )
        return replace(self, roots=(*self.roots, root), certificates=certificates)

    def match(self, certificate: "x509.Certificate") -> TrustedRoot | None:
        """The root that this certificate is, by both digests; None for every other certificate."""
        digest = certificate_digest(certificate)
        root = next((root for root in self.roots if root.certificate_sha256 == digest), None)
        if root is None:
            return None
        try:
            return root if key_digest(certificate) == root.key_sha256 else None
        except (ValueError, UnsupportedAlgorithm):
            return None
