"""Values of every wire type, and bytes that are almost valid."""

from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import strategies as st

from app.wire.bits import GuestPolicy, PlatformInfo
from app.wire.certificate_table import CertificateEntry, CertificateTable
from app.wire.guid import NAMES
from app.wire.manifest import EkManifest, KeyListManifest
from app.wire.product import Cpuid
from app.wire.report import AttestationReport, FirmwareVersion, KeyInfo, Signature
from app.wire.services_manifest import ServiceEntry, ServicesManifest
from app.wire.tcb import TcbLayout, TcbVersion
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, CertifyInfo, ClockInfo, QuoteInfo
from app.wire.tpm.credential import CredentialBlob, IdObject
from app.wire.tpm.duplicate import ImportBlob, encode_public
from app.wire.tpm.fields import to_tpm2b
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import EccKey, RsaKey, TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, HmacSignature, RsaSignature
from app.wire.uefi_mm import UefiMmManifest

BYTE = st.integers(0, 0xFF)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


def octets(size: int) -> st.SearchStrategy[bytes]:
    """Exactly `size` bytes."""
    return st.binary(min_size=size, max_size=size)


policies = st.builds(
    GuestPolicy, abi_major=BYTE, abi_minor=BYTE, **{name: st.booleans() for name in GuestPolicy.__slots__[2:]}
)
versions_of_firmware = st.builds(FirmwareVersion, major=BYTE, minor=BYTE, build=BYTE)
cpuids = st.builds(Cpuid, family=BYTE, model=BYTE, stepping=BYTE)
key_infos = st.builds(
    KeyInfo, author_key_en=st.booleans(), mask_chip_key=st.booleans(), signing_key=st.integers(0, 7)
)
signatures = st.builds(Signature, r=st.integers(0, 2**576 - 1), s=st.integers(0, 2**576 - 1))
uefi_mm_manifests = st.builds(UefiMmManifest, U32)


@st.composite
def tcbs(draw: st.DrawFn, layout: TcbLayout) -> TcbVersion:
    parts = {name: draw(BYTE) for name in layout.value if name is not None}
    return TcbVersion(**parts)


@st.composite
def reports(draw: st.DrawFn) -> AttestationReport:
    version = draw(st.sampled_from((2, 3, 4, 5)))
    return AttestationReport(
        version=version,
        guest_svn=draw(U32),
        policy=draw(policies),
        family_id=draw(octets(16)),
        image_id=draw(octets(16)),
        vmpl=draw(st.sampled_from((0, 1, 3, 4, 0xFFFFFFFF))),
        platform_info=PlatformInfo(draw(U64)),
        key_info=draw(key_infos),
        report_data=draw(octets(64)),
        measurement=draw(octets(48)),
        host_data=draw(octets(32)),
        id_key_digest=draw(octets(48)),
        author_key_digest=draw(octets(48)),
        report_id=draw(octets(32)),
        report_id_ma=draw(octets(32)),
        current_tcb=draw(octets(8)),
        reported_tcb=draw(octets(8)),
        committed_tcb=draw(octets(8)),
        launch_tcb=draw(octets(8)),
        cpuid=draw(cpuids) if version >= 3 else None,
        chip_id=draw(octets(64)),
        current_version=draw(versions_of_firmware),
        committed_version=draw(versions_of_firmware),
        launch_mit_vector=draw(U64) if version >= 5 else None,
        current_mit_vector=draw(U64) if version >= 5 else None,
        signature=draw(signatures),
    )


@st.composite
def keys(draw: st.DrawFn) -> TpmtPublic:
    name_alg = draw(st.sampled_from(sorted(alg.HASH_SIZES)))
    size = draw(st.sampled_from((0, alg.HASH_SIZES[name_alg])))
    hashed: dict[int, bool]
    key: RsaKey | EccKey
    if draw(st.booleans()):
        bits = draw(st.sampled_from((2048, 3072)))
        modulus = draw(st.integers(0, 2 ** (bits - 2) - 1)) << 1 | 1 << (bits - 1) | 1
        key = RsaKey(bits=bits, modulus=modulus, explicit_exponent=draw(st.booleans()))
        hashed = {alg.NULL: False, alg.RSASSA: True, alg.RSAPSS: True, alg.RSAES: False, alg.OAEP: True}
    else:
        curve = draw(st.sampled_from((alg.P256, alg.P384)))
        openssl = ec.SECP256R1() if curve is alg.P256 else ec.SECP384R1()
        scalar = draw(st.integers(1, 2**250))
        point = ec.derive_private_key(scalar, openssl).public_key().public_numbers()
        key = EccKey(curve=curve, x=point.x, y=point.y)
        hashed = {alg.NULL: False, alg.ECDSA: True, alg.ECDH: True}
    scheme = draw(st.sampled_from(sorted(hashed)))
    return TpmtPublic(
        name_alg=name_alg,
        attributes=draw(U32) & 0x000F0CF6,
        auth_policy=draw(octets(size)),
        symmetric_bits=draw(st.sampled_from((None, 128, 192, 256))),
        scheme=scheme,
        scheme_hash=draw(st.sampled_from(sorted(alg.HASH_SIZES))) if hashed[scheme] else None,
        key=key,
    )


pcr_selections = st.dictionaries(
    st.sampled_from(("sha256", "sha384", "sha512")),
    st.sets(st.integers(0, 23), min_size=1),
    min_size=1,
).map(PcrSelection.of)
hash_algs = st.sampled_from(sorted(alg.HASH_SIZES))
digests = hash_algs.flatmap(lambda one: octets(alg.HASH_SIZES[one]))
names = hash_algs.flatmap(
    lambda one: octets(alg.HASH_SIZES[one]).map(lambda digest: one.to_bytes(2, "big") + digest)
)
attests = st.builds(
    Attest,
    qualified_signer=names,
    extra_data=st.binary(max_size=66),
    clock=st.builds(ClockInfo, clock_ms=U64, reset_count=U32, restart_count=U32, safe=st.booleans()),
    firmware_version=U64,
    attested=st.one_of(st.builds(QuoteInfo, pcr_selections, digests), st.builds(CertifyInfo, names, names)),
)
integers = st.binary(min_size=1, max_size=48)
tpm_signatures = st.one_of(
    st.builds(
        RsaSignature,
        st.sampled_from((alg.RSASSA, alg.RSAPSS)),
        hash_algs,
        st.sampled_from((256, 384)).flatmap(octets),
    ),
    st.builds(EcdsaSignature, hash_algs, integers, integers),
    hash_algs.flatmap(lambda one: st.builds(HmacSignature, st.just(one), octets(alg.HASH_SIZES[one]))),
)
seeds = st.one_of(
    st.sampled_from((256, 384)).flatmap(octets),
    st.tuples(integers, integers).map(lambda point: b"".join(map(to_tpm2b, point))),
)
id_objects = digests.flatmap(
    lambda integrity: st.builds(
        IdObject, st.just(integrity), st.binary(min_size=3, max_size=2 + len(integrity))
    )
)
credentials = st.builds(CredentialBlob, id_objects, seeds)
import_blobs = st.builds(
    ImportBlob,
    octets(32).map(encode_public),
    st.tuples(digests, octets(74)).map(lambda parts: to_tpm2b(parts[0]) + parts[1]),
    seeds,
)

ek_manifests = st.builds(EkManifest, keys())
key_lists = st.builds(
    KeyListManifest, st.lists(keys(), min_size=2, max_size=5, unique_by=TpmtPublic.encode).map(tuple)
)

# A swapped form of a known GUID would be read as the known one.
guids = st.one_of(st.sampled_from(sorted(NAMES)), st.uuids()).filter(
    lambda guid: UUID(bytes_le=guid.bytes) not in NAMES
)
certificate_tables = st.builds(
    CertificateTable,
    st.lists(
        st.builds(CertificateEntry, guids, st.binary(max_size=64)), max_size=8, unique_by=lambda one: one.guid
    ).map(tuple),
)
services_manifests = st.builds(
    ServicesManifest,
    st.lists(
        st.builds(ServiceEntry, guids, st.binary(max_size=64)), max_size=8, unique_by=lambda one: one.guid
    ).map(tuple),
)


@st.composite
def damaged(draw: st.DrawFn, valid: tuple[bytes, ...]) -> bytes:
    """A valid input after one to four edits, of the kinds that reach past the first check."""
    raw = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        kind = draw(st.sampled_from(("flip", "number", "insert", "delete", "repeat", "cut")))
        if kind == "flip" and at < len(raw):
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            width = draw(st.sampled_from((1, 2, 4)))
            near = draw(st.sampled_from((0, 1, at, len(raw), 2 ** (8 * width)))) + draw(st.integers(-2, 2))
            order = draw(st.sampled_from(("little", "big")))
            raw[at : at + width] = (near % 2 ** (8 * width)).to_bytes(width, order)
        elif kind == "insert":
            raw[at:at] = draw(st.binary(max_size=8))
        elif kind == "delete":
            del raw[at : at + draw(st.integers(1, 32))]
        elif kind == "repeat":
            raw[at:at] = raw[at : at + draw(st.integers(1, 32))]
        else:
            del raw[at:]
    return bytes(raw)
