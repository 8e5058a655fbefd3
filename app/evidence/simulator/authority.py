"""A certificate authority shaped like AMD's: ARK, ASK and ASVK of one product line, and its CRL.

Names, algorithms, extensions, sizes and lifetimes follow AMD's profile; the organisation says
SIMULATED, and the roots are in no default trust store.
Source: AMD 57230 (VCEK certificate and KDS interface) and the published certificates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from app.evidence.simulator.vault import Vault
from app.evidence.simulator.vek_profile import VekRequest, vek_extensions
from app.trust.names import VekKind
from app.wire.product import ProductLine

ORGANISATION = "svsm-attest SIMULATED"
BACKDATING = timedelta(days=1)  # AMD's leaves start a day before they are asked for
CRL_LIFETIME = timedelta(days=47)  # that of a Milan CRL of 2026
_CA_LIFETIME = timedelta(days=25 * 365 + 6)
_RSA_BITS = 4096
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_CRL_HOST = "https://kds.simulated.invalid"  # a reserved name: nothing can be fetched from there

# AMD's own, of ARK, ASK and ASVK
_SERIALS = {
    "ARK-Milan": 0x10000,
    "SEV-Milan": 0x10001,
    "SEV-VLEK-Milan": 0x10101,
    "ARK-Genoa": 0x20000,
    "SEV-Genoa": 0x20002,
    "SEV-VLEK-Genoa": 0x20101,
    "ARK-Turin": 0x30000,
    "SEV-Turin": 0x30001,
    "SEV-VLEK-Turin": 0x30101,
}
_LEAF_SERIAL = 1  # AMD's leaves have 0, which cryptography's builder refuses


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlRequest:
    """What a CRL is to say."""

    this_update: datetime
    next_update: datetime
    revoked: tuple[int, ...] = ()  # serial numbers of intermediates


class CertificateAuthority:
    """The keys and certificates of one product line, made when they are first needed.

    Args:
        line: the certificate family, which is spelled into the names.
        vault: where keys and certificates are kept.
        label: tells authorities of the same line apart in one vault.
        clock: the time that validity counts from.

    Blocks: the first use of a key makes it (RSA-4096, up to several seconds), each signature
    takes milliseconds. Everything raises BackendError where the vault cannot be used.
    """

    def __init__(
        self, line: ProductLine, vault: Vault, *, label: str = "", clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.line = line
        self.clock = clock
        self._vault = vault
        self._label = label

    @cached_property
    def ark(self) -> x509.Certificate:
        """The root: signed by itself, without a path length, allowed to sign CRLs."""
        return self._ca_certificate(f"ARK-{self.line}", issuer=None)

    @cached_property
    def ask(self) -> x509.Certificate:
        """The issuer of VCEKs."""
        return self._ca_certificate(f"SEV-{self.line}", issuer=self.ark)

    @cached_property
    def asvk(self) -> x509.Certificate:
        """The issuer of VLEKs."""
        return self._ca_certificate(f"SEV-VLEK-{self.line}", issuer=self.ark)

    def intermediate(self, kind: VekKind) -> x509.Certificate:
        """The issuer of leaves of that kind: ASK or ASVK."""
        return self.ask if kind is VekKind.VCEK else self.asvk

    @property
    def intermediate_serials(self) -> tuple[int, int]:
        """Serial numbers of ASK and ASVK, whether they were made yet or not."""
        return _SERIALS[f"SEV-{self.line}"], _SERIALS[f"SEV-VLEK-{self.line}"]

    def issue_vek(self, request: VekRequest) -> x509.Certificate:
        """A VCEK from the ASK, or a VLEK from the ASVK; other bytes each time, as from AMD."""
        issuer = self.intermediate(request.kind)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(f"SEV-{request.kind.upper()}"))
            .issuer_name(issuer.subject)
            .public_key(request.public_key)
            .serial_number(_LEAF_SERIAL)
            .not_valid_before(request.not_before)
            .not_valid_after(request.not_after)
        )
        for extension in vek_extensions(self.line, request):
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(
            self._key_of(issuer), hashes.SHA384(), rsa_padding=_PSS if request.pss else padding.PKCS1v15()
        )

    def issue_crl(self, request: CrlRequest) -> x509.CertificateRevocationList:
        """A CRL signed by the ARK; it is numbered by its time, so that later ones count higher."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.ark.subject)
            .last_update(request.this_update)
            .next_update(request.next_update)
            .add_extension(_authority_key_identifier(self.ark), critical=False)
            .add_extension(x509.CRLNumber(int(request.this_update.timestamp())), critical=False)
        )
        for serial in request.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(request.this_update)
                .build()
            )
        return builder.sign(self._key_of(self.ark), hashes.SHA384(), rsa_padding=_PSS)

    def _ca_certificate(self, name: str, issuer: x509.Certificate | None) -> x509.Certificate:
        """The certificate of that common name from the vault; None as issuer makes it the root."""
        label = self._label + name

        def issue() -> x509.Certificate:
            key = self._vault.rsa_key(label, _RSA_BITS)
            start = self.clock() - BACKDATING
            builder = (
                x509.CertificateBuilder()
                .subject_name(_name(name))
                .issuer_name(_name(name) if issuer is None else issuer.subject)
                .public_key(key.public_key())
                .serial_number(_SERIALS[name])
                .not_valid_before(start)
                .not_valid_after(start + _CA_LIFETIME)
            )
            for extension, critical in _ca_extensions(self.line, name, key.public_key(), issuer):
                builder = builder.add_extension(extension, critical=critical)
            signer = key if issuer is None else self._key_of(issuer)
            return builder.sign(signer, hashes.SHA384(), rsa_padding=_PSS)

        certificate = self._vault.certificate(label, issue)
        try:
            certificate.verify_directly_issued_by(issuer or certificate)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise self._vault.corrupt(label, "the certificate is not of this authority") from error
        return certificate

    def _key_of(self, certificate: x509.Certificate) -> rsa.RSAPrivateKey:
        label = self._label + str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        key = self._vault.rsa_key(label, _RSA_BITS)
        if key.public_key() != certificate.public_key():
            raise self._vault.corrupt(label, "key and certificate do not belong together")
        return key


def _name(common_name: str) -> x509.Name:
    """AMD's attributes in AMD's order, but for the organisation."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "SIMULATED"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _ca_extensions(
    line: ProductLine, name: str, key: rsa.RSAPublicKey, issuer: x509.Certificate | None
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """Extensions of an ARK (no issuer), ASK or ASVK, each with its critical flag."""
    yield x509.SubjectKeyIdentifier.from_public_key(key), False
    if issuer is not None:
        yield _authority_key_identifier(issuer), False
    yield x509.BasicConstraints(ca=True, path_length=None if issuer is None else 0), True
    yield _key_usage(crl_sign=issuer is None), True
    leaves = "vlek" if name.startswith("SEV-VLEK-") else "vcek"
    place = x509.UniformResourceIdentifier(f"{_CRL_HOST}/{leaves}/v1/{line}/crl")
    point = x509.DistributionPoint(full_name=[place], relative_name=None, reasons=None, crl_issuer=None)
    yield x509.CRLDistributionPoints([point]), False


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
