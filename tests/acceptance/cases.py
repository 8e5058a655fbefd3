"""The published vectors as cases, each with the verdict that is right for it and the reason why.

The vectors' own file says `valid` or `invalid` in words; what a verifier must answer in terms of
check ids and problem types is written down here, once, for the command line and for HTTP.
"""

import fnmatch
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("SVSM_ATTEST_VECTORS", REPOSITORY.parent / "shared" / "vectors"))

NOW = "2026-11-23T12:00:00Z"
INSIDE_VLEK = "2025-06-01T00:00:00Z"
AFTER_VLEK = "2026-06-01T00:00:00Z"


@dataclass(frozen=True)
class Expected:
    """What the answer must be.

    `failed` and `warned` are compared exactly within the checks that the default policy does not
    warn about anyway; `chain` are the faults that snp.chain must name.
    """

    genuine: bool = True
    failed: frozenset[str] = frozenset()
    chain: frozenset[str] = frozenset()
    malformed: str | None = None  # part of the error's detail; then there is no verdict at all
    unsupported_version: bool = False
    bad_nonce: bool = False
    unavailable: bool = False


@dataclass(frozen=True)
class Case:
    id: str
    report: Path
    certificates: tuple[Path, ...]
    expected: Expected
    at: str = NOW
    nonce: Path | None = None
    manifest: Path | None = None
    report_data: bytes | None = None
    trust_root: Path | None = None
    crl: Path | None = None
    policy: str | None = None  # a document; None: the built-in one

    @property
    def profile(self) -> str:
        return "snp" if self.manifest is None else "svsm"


def ok() -> Expected:
    return Expected()


def fails(*checks: str, genuine: bool = False, chain: tuple[str, ...] = ()) -> Expected:
    return Expected(genuine=genuine, failed=frozenset(checks), chain=frozenset(chain))


def malformed(detail: str) -> Expected:
    return Expected(genuine=False, malformed=detail)


VERSION = Expected(genuine=False, malformed="is not supported", unsupported_version=True)
UNAVAILABLE = Expected(genuine=False, unavailable=True)
NONCE = Expected(genuine=False, malformed="32 bytes, want exactly 64", bad_nonce=True)
SIGNATURE = fails("snp.signature")
REPORT = "ATTESTATION_REPORT at 0x"

# First match wins.
NEGATIVE: tuple[tuple[str, Expected], ...] = (
    ("*--report_data-bitflip", fails("snp.signature", "snp.report_data")),
    ("*--measurement-bitflip", SIGNATURE),
    ("*--last-signed-byte-bitflip", malformed(f"{REPORT}29f: reserved byte")),
    ("*--sig-?-bitflip", SIGNATURE),
    ("*--sig-r-high-pad", SIGNATURE),
    ("*--sig-zero", SIGNATURE),
    ("*--big-endian-sig", SIGNATURE),
    ("*--sig-tail-nonzero", malformed(f"{REPORT}337: reserved byte after the signature")),
    ("*--sig-s-negated", ok()),
    ("*--version-?", VERSION),
    ("*--sigalgo-2", malformed(f"{REPORT}34: SIGNATURE_ALGO is 2")),
    ("*--truncated-*", malformed("bytes, want 1184")),
    ("*--trailing-*", malformed("bytes, want 1184")),
    ("*--guest-response-header", malformed("1216 bytes, want 1184")),
    ("*--leaf-trailing-byte", malformed("certificate")),
    ("*--leaf-truncated", malformed("certificate")),
    (
        "turin-v5-oak--leaf-of-other-chip",
        fails("snp.signature", "snp.chain", "snp.vek.tcb", "snp.vek.hwid", "snp.product", chain=("issuer",)),
    ),
    (
        "milan-vlek-*--leaf-of-other-chip",
        fails("snp.signature", "snp.chain", "snp.vek.kind", "snp.vek.tcb", "snp.vek.hwid", chain=("issuer",)),
    ),
    ("*--leaf-of-other-chip", fails("snp.signature", "snp.vek.tcb", "snp.vek.hwid")),
    ("milan-vlek-*--leaf-tbs-bitflip", fails("snp.chain", chain=("signature",))),
    ("*--leaf-tbs-bitflip", fails("snp.chain", "snp.vek.hwid", chain=("signature",))),
    ("*--leaf-outer-sigalg-salt-changed", fails("snp.chain", chain=("algorithm",))),
    ("*--leaf-signature-bitflip", fails("snp.chain", chain=("signature",))),
    ("*--leaf-productname-tampered", fails("snp.chain", chain=("signature",))),
    ("*--chain-of-*", fails("snp.chain", chain=("issuer",))),
    ("*--wrong-intermediate-kind", fails("snp.chain", chain=("issuer",))),
    ("milan-v3-oak--cpuid-says-genoa", fails("snp.signature", "snp.product", "snp.vek.tcb")),
    (
        "turin-v5-oak--cpuid-says-milan",
        fails("snp.signature", "snp.product", "snp.vek.tcb", "snp.tcb.relations"),
    ),
    (
        "milan-v3-oak--reported-tcb-raised",
        fails("snp.signature", "snp.vek.tcb", "snp.tcb.relations"),
    ),
)

SYNTHETIC: dict[str, Expected] = {
    "good": ok(),
    "good-vlek": ok(),
    "tcb-snp-lower-in-cert": fails("snp.vek.tcb"),
    "tcb-ucode-higher-in-cert": fails("snp.vek.tcb"),
    "hwid-mismatch": fails("snp.vek.hwid"),
    "hwid-missing": fails("snp.chain", "snp.vek.hwid", chain=("profile",)),
    "hwid-octet-string": ok(),
    "both-hwid-and-cspid": fails("snp.chain", "snp.vek.hwid", chain=("profile",)),
    "vcek-cn-vlek": fails("snp.chain", "snp.vek.kind", "snp.vek.hwid", chain=("profile",)),
    "spl-missing": fails("snp.chain", "snp.vek.tcb", chain=("profile",)),
    "struct-version-wrong": fails("snp.chain", chain=("profile",)),
    "product-name-other": ok(),  # from report version 3 on, CPUID decides
    "vcek-expired": fails("snp.chain", chain=("expired",)),
    "vcek-not-yet-valid": fails("snp.chain", chain=("not-yet-valid",)),
    "ask-expired": fails("snp.chain", chain=("expired",)),
    "ask-not-ca": fails("snp.chain", chain=("profile",)),
    "ark-impostor-same-name": fails("snp.chain", chain=("unknown-root", "signature")),
    "ark-expired": fails("snp.chain", chain=("unknown-root", "expired")),
    # Its issuer names no product line, so nothing that depends on one can be compared.
    "vcek-issued-by-ark": fails(
        "snp.chain", "snp.product", "snp.vek.tcb", "snp.vek.hwid", chain=("issuer", "profile")
    ),
    "vcek-pkcs1v15": fails("snp.chain", chain=("algorithm",)),
    "vcek-pss-sha256": fails("snp.chain", chain=("algorithm",)),
    "vcek-p256": fails("snp.signature", "snp.chain", chain=("algorithm",)),
    "vcek-rsa-key": fails("snp.signature", "snp.chain", chain=("algorithm",)),
    "unknown-noncritical-ext": ok(),
    "keyinfo-vlek-with-vcek": fails("snp.vek.kind"),
    "vlek-keyinfo-vcek": fails("snp.vek.kind"),
    "keyinfo-none-unsigned": fails("snp.signature", "snp.vek.kind"),
    "keyinfo-reserved-3": fails("snp.vek.kind"),
    "keyinfo-bit5": malformed(f"{REPORT}48: KEY_INFO bits 5..31"),
    "mask-chip-key": fails("snp.vek.hwid"),
    "chip-id-zero": fails("snp.vek.hwid"),
    "policy-bit17-zero": malformed("GUEST_POLICY at 0x8: reserved bit 17"),
    "policy-bit26": malformed("GUEST_POLICY at 0x8: bits from 26"),
    "policy-debug": fails("snp.policy.debug", genuine=True),
    "policy-migrate": fails("snp.policy.migrate_ma", genuine=True),
    "platform-unknown-bits": ok(),
    "platform-no-alias-check": ok(),  # a warning of snp.platform_info: see test_warnings
    "vmpl-3": ok(),  # a bare report may be of any VMPL; SVSM evidence may not
    "vmpl-4": fails("snp.vmpl", genuine=True),
    "vmpl-host": fails("snp.vmpl", genuine=True),
    "reserved-4c": malformed(f"{REPORT}4c: reserved byte"),
    "reserved-18b": malformed(f"{REPORT}18b: reserved byte"),
    "reserved-1eb": malformed(f"{REPORT}1eb: byte after CURRENT_VERSION"),
    "reserved-208": malformed(f"{REPORT}208: reserved byte"),
    "v3-with-mit-bytes": malformed(f"{REPORT}1f8: LAUNCH_MIT_VECTOR (reserved before version 5)"),
    "version-4": ok(),
    "version-6": VERSION,
    "version-2": ok(),
    "sigalgo-0": malformed(f"{REPORT}34: SIGNATURE_ALGO is 0"),
    "provisional-firmware": ok(),  # a warning of snp.firmware: see test_warnings
    "reported-above-current": fails("snp.tcb.relations", genuine=True),
    "svsm-vtpm-good": ok(),
    "svsm-vtpm-swapped-order": fails("snp.report_data", "vtpm.binding", genuine=True),
    "svsm-vtpm-tpm2b": malformed("TPMT_PUBLIC at 0x0: starts with its own size"),
    "svsm-vtpm-other-nonce": fails("snp.report_data", "vtpm.binding", genuine=True),
    "svsm-vtpm-short-nonce": NONCE,
    "svsm-vtpm-vmpl1": fails("snp.vmpl", "vtpm.binding", genuine=True),
    "svsm-vtpm-manifest-trailing": malformed("TPMT_PUBLIC at 0x13a: 1 bytes follow"),
}

TABLES: dict[str, Expected] = {
    "genoa-good": ok(),
    "genoa-good-page-padded": ok(),
    "genoa-little-endian-guid": ok(),
    "genoa-no-terminator": malformed("certificate table at 0x"),
    "genoa-offset-past-end": malformed("certificate table at 0x0"),
    "genoa-length-past-end": malformed("certificate table at 0x0"),
    "genoa-offset-into-header": malformed("certificate table at 0x0"),
    "genoa-duplicate-vcek": malformed("occurs twice"),
    "genoa-unknown-guid-extra": ok(),
    "genoa-empty": UNAVAILABLE,
    "genoa-truncated-header": malformed("certificate table at 0x"),
    "genoa-vcek-only": ok(),
    "genoa-vcek-pem": ok(),
}

CRLS: dict[str, Expected] = {
    "crl-empty": ok(),
    "crl-revokes-other-ask": ok(),
    "crl-revokes-ask": fails("snp.revocation", genuine=True),
    "crl-wrong-signer": fails("snp.revocation", genuine=True),
    "crl-signed-by-ask": fails("snp.revocation", genuine=True),
    "crl-stale": ok(),  # a warning: no current list
    "crl-future": ok(),
}

MASKED = """{"version": 1, "id": "masked", "root_of_trust": {"allow_masked_chip_id": true}}"""


@functools.cache
def document() -> dict[str, list[dict[str, object]]]:
    loaded: dict[str, list[dict[str, object]]] = json.loads((FOLDER / "vectors.json").read_text())
    return loaded


def available() -> bool:
    return (FOLDER / "vectors.json").is_file()


def _case(entry: dict[str, object], expected: Expected, **more: object) -> Case:
    files: dict[str, str] = entry["files"]  # type: ignore[assignment]
    roles = ("vcek", "vlek", "ask", "asvk", "ark")
    certificates = tuple(FOLDER / files[role] for role in roles if role in files)
    parts: dict[str, object] = {
        "id": entry["id"],
        "report": FOLDER / files["report"],
        "certificates": certificates,
        "expected": expected,
        "nonce": FOLDER / files["nonce"] if "nonce" in files else None,
        "manifest": FOLDER / files["manifest"] if "manifest" in files else None,
    }
    return Case(**{**parts, **more})  # type: ignore[arg-type]


def real_cases() -> list[Case]:
    cases: list[Case] = []
    for entry in document()["real"]:
        name, files = str(entry["id"]), entry["files"]
        assert isinstance(files, dict)
        report_data = bytes.fromhex(str(entry["report_data"]))
        if entry["expected"] == "parse-only":
            cases.append(_case(entry, UNAVAILABLE, report_data=report_data))
        elif name == "v1-azure-old":
            cases.append(_case(entry, VERSION))
        elif name == "milan-v2-debug-policy":
            expected = fails("snp.policy.debug", genuine=True)
            cases.append(_case(entry, expected, report_data=report_data))
        elif "verdict_at" in entry:
            cases.append(_case(entry, ok(), at=INSIDE_VLEK, report_data=report_data))
            late = fails("snp.chain", chain=("expired",))
            cases.append(_case(entry, late, id=f"{name}@late", at=AFTER_VLEK, report_data=report_data))
        else:
            cases.append(_case(entry, ok(), report_data=report_data))
        if "vcek_alt" in files:
            other = {**entry, "id": f"{name}@alt", "files": {**files, "vcek": files["vcek_alt"]}}
            cases.append(_case(other, ok(), report_data=report_data))
        if "report_as_published" in files:
            other = {**entry, "files": {**files, "report": files["report_as_published"]}}
            cases.append(_case(other, malformed("1204 bytes, want 1184"), id=f"{name}@published"))
    return cases


def negative_cases() -> list[Case]:
    bases = {str(entry["id"]): entry for entry in document()["real"]}
    cases: list[Case] = []
    for entry in document()["negatives"]:
        name, base = str(entry["id"]), bases[str(entry["base"])]
        expected = next(found for pattern, found in NEGATIVE if fnmatch.fnmatchcase(name, pattern))
        at = INSIDE_VLEK if "verdict_at" in base else NOW
        report_data = bytes.fromhex(str(base["report_data"]))
        cases.append(_case(entry, expected, at=at, report_data=report_data))
    return cases


def synthetic_cases() -> list[Case]:
    root = FOLDER / "synthetic/genoa/ark.der"
    cases: list[Case] = []
    for entry in document()["synthetic"]:
        name = str(entry["id"]).removeprefix("synthetic-genoa-")
        at = INSIDE_VLEK if "vlek" in entry["files"] else NOW  # type: ignore[operator]
        cases.append(_case(entry, SYNTHETIC[name], trust_root=root, at=at))
        if name in ("mask-chip-key", "chip-id-zero"):
            cases.append(_case(entry, ok(), id=f"{name}@allowed", trust_root=root, policy=MASKED))
    untrusted = fails("snp.chain", chain=("unknown-root",))
    cases.append(_case(document()["synthetic"][0], untrusted, id="synthetic-genoa-good@amd-roots"))
    return cases


def table_cases() -> list[Case]:
    base = next(entry for entry in document()["real"] if entry["id"] == "genoa-v5-a")
    cases: list[Case] = []
    for entry in document()["certificate_tables"]:
        table = FOLDER / str(entry["file"])
        # A table that holds only the leaf needs the authorities from elsewhere.
        rest = tuple(FOLDER / f"ca/genoa-{role}.der" for role in ("ask", "ark"))
        more = rest if entry["id"] == "genoa-vcek-only" else ()
        expected = TABLES[str(entry["id"])]
        cases.append(_case(base, expected, id=f"certtable-{entry['id']}", certificates=(table, *more)))
    return cases


def crl_cases() -> list[Case]:
    good = next(entry for entry in document()["synthetic"] if entry["id"] == "synthetic-genoa-good")
    root = FOLDER / "synthetic/genoa/ark.der"
    cases: list[Case] = []
    for entry in document()["crls"]:
        path = FOLDER / str(entry["file"])
        if path.stem in CRLS:
            cases.append(_case(good, CRLS[path.stem], id=f"crl-{path.stem}", trust_root=root, crl=path))
    real = next(entry for entry in document()["real"] if entry["id"] == "milan-v2-baremetal-a")
    crl = FOLDER / "crl/milan-vcek-crl-2023.der"
    for name, at in (("current", "2023-06-01T00:00:00Z"), ("stale", NOW)):
        cases.append(_case(real, ok(), id=f"crl-real-{name}", crl=crl, at=at))
    return cases


def all_cases() -> list[Case]:
    """Every case of the vectors, or none where the folder is absent."""
    if not available():
        return []
    return [*real_cases(), *negative_cases(), *synthetic_cases(), *table_cases(), *crl_cases()]


def certificate_table(case: Case) -> bytes | None:
    """The case's certificates as an attester would hand them out."""
    raw = [path.read_bytes() for path in (*case.certificates, *([case.crl] if case.crl else []))]
    if not raw:
        return None
    names = {"vcek": guid.VCEK, "vlek": guid.VLEK, "ask": guid.ASK, "asvk": guid.ASK, "ark": guid.ARK}
    entries: list[CertificateEntry] = []
    for path, data in zip((*case.certificates, *([case.crl] if case.crl else [])), raw, strict=True):
        if path.parent.name == "certtable":
            if len(raw) == 1:
                return data
            entries += CertificateTable.parse(data).entries
            continue
        role = next((role for role in names if role in path.stem.split("-")[-1].split("_")), None)
        entries.append(CertificateEntry(guid.CRL if path == case.crl else names[role or "vcek"], data))
    table = CertificateTable(tuple(entries)).encode()
    CertificateTable.parse(table)  # a mistake in these cases must not look like one in what they test
    return table
