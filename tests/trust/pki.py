"""Certificate authorities shaped like AMD's, in which any one thing can be made wrong."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion

AT = datetime(2026, 11, 1, tzinfo=UTC)
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC)
Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
AMD_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
ORGANISATION = (
    (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
    (NameOID.COUNTRY_NAME, "US"),
    (NameOID.LOCALITY_NAME, "Santa Clara"),
    (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
    (NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
)
SIMULATED = (*ORGANISATION[1:4], (NameOID.ORGANIZATION_NAME, "Somebody SIMULATED"))
HWID = bytes(range(64))
MILAN_TCB = TcbVersion(bootloader=4, tee=0, snp=24, microcode=219)
TURIN_TCB = TcbVersion(fmc=1, bootloader=2, tee=3, snp=4, microcode=71)
_ARC = "1.3.6.1.4.1.3704.1."


@cache
def rsa_key(_name: str, bits: int = 4096, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """One key per name; making a 4096-bit key takes about a second."""
    return rsa.generate_private_key(exponent, bits)


@cache
def ec_key(_name: str, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def named(common_name: str, organisation: Any = ORGANISATION) -> x509.Name:
    attributes = (*organisation, (NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a certificate is to be; `but` makes one thing different."""

    subject: x509.Name
    issuer: x509.Name
    key: Any
    signer: Any
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    serial: int = 1
    start: datetime = START
    end: datetime = END
    digest: Digest = field(default_factory=hashes.SHA384)
    padding: Any = field(default_factory=lambda: AMD_PSS)

    def but(self, **changes: Any) -> "Plan":
        return replace(self, **changes)

    def without(self, kind: type[x509.ExtensionType]) -> "Plan":
        return replace(self, extensions=tuple(one for one in self.extensions if not isinstance(one[0], kind)))

    def having(self, extension: x509.ExtensionType, *, critical: bool = False) -> "Plan":
        return replace(self, extensions=(*self.extensions, (extension, critical)))

    def issue(self) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(self.issuer)
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.start)
            .not_valid_after(self.end)
        )
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical)
        padded = isinstance(self.signer, rsa.RSAPrivateKey)
        return builder.sign(self.signer, self.digest, rsa_padding=self.padding if padded else None)


def usage(*, certificates: bool = True, crls: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not (certificates or crls),
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=crls,
        encipher_only=False,
        decipher_only=False,
    )


def constraints(*, ca: bool = True, path_length: int | None = None) -> x509.BasicConstraints:
    return x509.BasicConstraints(ca=ca, path_length=path_length)


def ark(line: ProductLine = ProductLine.MILAN, organisation: Any = ORGANISATION, key: str = "ark") -> Plan:
    name = named(f"ARK-{line}", organisation)
    return Plan(
        subject=name,
        issuer=name,
        key=rsa_key(key),
        signer=rsa_key(key),
        serial=0x10000,
        extensions=((constraints(), True), (usage(crls=True), True)),
    )


def ask(line: ProductLine = ProductLine.MILAN, organisation: Any = ORGANISATION, kind: str = "SEV") -> Plan:
    return Plan(
        subject=named(f"{kind}-{line}", organisation),
        issuer=named(f"ARK-{line}", organisation),
        key=rsa_key("ask"),
        signer=rsa_key("ark"),
        serial=0x10001,
        extensions=((constraints(path_length=0), True), (usage(), True)),
    )


def amd(arc: str, value: bytes) -> x509.UnrecognizedExtension:
    """An extension of AMD's, by the last arcs of its OID."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(_ARC + arc), value)


def integer(arc: str, number: int) -> x509.UnrecognizedExtension:
    return amd(arc, asn1.encode_der(number))


def text(arc: str, words: str) -> x509.UnrecognizedExtension:
    return amd(arc, asn1.encode_der(asn1.IA5String(words)))


def leaf_extensions(
    tcb: TcbVersion, *own: x509.UnrecognizedExtension, struct_version: int = 0
) -> dict[str, x509.UnrecognizedExtension]:
    """By their last arcs, so that a test can take one out or exchange it."""
    arcs = {"fmc": "3.9", "bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
    levels = {arcs[name]: integer(arcs[name], level) for name, level in tcb.components().items()}
    others = {one.oid.dotted_string.removeprefix(_ARC): one for one in own}
    return {"1": integer("1", struct_version), "2": text("2", "Somewhere")} | levels | others


def vcek(
    line: ProductLine = ProductLine.MILAN,
    organisation: Any = ORGANISATION,
    hwid: bytes | None = None,
    tcb: TcbVersion | None = None,
) -> Plan:
    turin = line is ProductLine.TURIN
    values = leaf_extensions(
        tcb or (TURIN_TCB if turin else MILAN_TCB),
        amd("4", HWID[: line.hwid_size] if hwid is None else hwid),
        struct_version=int(turin),
    )
    return leaf(values, line=line, organisation=organisation)


def vlek(line: ProductLine = ProductLine.MILAN, organisation: Any = ORGANISATION) -> Plan:
    values = leaf_extensions(MILAN_TCB, text("5", "CN=cloud.example"))
    return leaf(values, kind="SEV-VLEK", issuer=f"SEV-VLEK-{line}", organisation=organisation)


def leaf(
    values: dict[str, x509.UnrecognizedExtension],
    *,
    kind: str = "SEV-VCEK",
    line: ProductLine = ProductLine.MILAN,
    issuer: str | None = None,
    organisation: Any = ORGANISATION,
) -> Plan:
    return Plan(
        subject=named(kind, organisation),
        issuer=named(issuer or f"SEV-{line}", organisation),
        key=ec_key("vek"),
        signer=rsa_key("ask"),
        extensions=tuple((value, False) for value in values.values()),
    )


@asn1.sequence
class _Tbs:
    version: Annotated[int, asn1.Explicit(0)]
    serial_number: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    key: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _TbsOfVersion1:
    serial_number: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    key: asn1.TLV


@asn1.sequence
class _Certificate:
    tbs: _Tbs
    algorithm: asn1.TLV
    signature: asn1.BitString


@asn1.sequence
class _CertificateOfVersion1:
    tbs: _TbsOfVersion1
    algorithm: asn1.TLV
    signature: asn1.BitString


def as_version_1(certificate: x509.Certificate) -> x509.Certificate:
    """The same names and key without version and extensions; the signature no longer holds."""
    parsed = asn1.decode_der(_Certificate, certificate.public_bytes(Encoding.DER))
    tbs = parsed.tbs
    kept = _TbsOfVersion1(
        serial_number=tbs.serial_number,
        signature=tbs.signature,
        issuer=tbs.issuer,
        validity=tbs.validity,
        subject=tbs.subject,
        key=tbs.key,
    )
    raw = asn1.encode_der(
        _CertificateOfVersion1(tbs=kept, algorithm=parsed.algorithm, signature=parsed.signature)
    )
    return x509.load_der_x509_certificate(raw)


def with_inner_algorithm(certificate: x509.Certificate, other: x509.Certificate) -> x509.Certificate:
    """The certificate with the algorithm identifier of another inside; the outer one stays."""
    parsed, donor = (
        asn1.decode_der(_Certificate, one.public_bytes(Encoding.DER)) for one in (certificate, other)
    )
    tbs = replace(parsed.tbs, signature=donor.tbs.signature)
    return x509.load_der_x509_certificate(asn1.encode_der(replace(parsed, tbs=tbs)))


def crl(
    issuer: x509.Name,
    *revoked: int,
    key: str = "ark",
    start: datetime = AT - timedelta(days=1),
    end: datetime = AT + timedelta(days=30),
    digest: Digest | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ((x509.CRLNumber(7), False),),
) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(start).next_update(end)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(rsa_key(key), digest or hashes.SHA384(), rsa_padding=AMD_PSS)


@asn1.sequence
class _TbsCertList:
    version: int
    signature: asn1.TLV
    issuer: asn1.TLV
    this_update: asn1.TLV
    next_update: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class _EndlessTbsCertList:
    version: int
    signature: asn1.TLV
    issuer: asn1.TLV
    this_update: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class _EndlessCertificateList:
    tbs: _EndlessTbsCertList
    algorithm: asn1.TLV
    signature: asn1.BitString


def endless_crl() -> x509.CertificateRevocationList:
    """A rightly signed CRL of ARK-Milan without nextUpdate, which the builder refuses to make."""
    whole = asn1.decode_der(_TbsCertList, crl(named("ARK-Milan")).tbs_certlist_bytes)
    tbs = _EndlessTbsCertList(
        version=whole.version,
        signature=whole.signature,
        issuer=whole.issuer,
        this_update=whole.this_update,
        extensions=whole.extensions,
    )
    signature = rsa_key("ark").sign(asn1.encode_der(tbs), AMD_PSS, hashes.SHA384())
    parsed = _EndlessCertificateList(
        tbs=tbs, algorithm=whole.signature, signature=asn1.BitString(signature, 0)
    )
    return x509.load_der_x509_crl(asn1.encode_der(parsed))
