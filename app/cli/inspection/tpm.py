"""Public areas of a TPM's keys.

Source: TCG TPM 2.0 Library, Part 2: TPMT_PUBLIC (12.2.4), TPMA_OBJECT (8.3).
"""

import hashlib
from typing import Any

from app.cli.inspection.sheet import Row, Section, Sheet, yes_no
from app.trust.tpm_key import pem
from app.wire import b64
from app.wire.tpm import algorithms as alg
from app.wire.tpm.public import EccKey, TpmtPublic

_ATTRIBUTES = {
    1: "fixedTPM",
    2: "stClear",
    4: "fixedParent",
    5: "sensitiveDataOrigin",
    6: "userWithAuth",
    7: "adminWithPolicy",
    10: "noDA",
    11: "encryptedDuplication",
    16: "restricted",
    17: "decrypt",
    18: "sign",
    19: "x509sign",
}
SCHEMES = {
    alg.NULL: "null",
    alg.HMAC: "HMAC",
    alg.RSASSA: "RSASSA",
    alg.RSAES: "RSAES",
    alg.RSAPSS: "RSAPSS",
    alg.OAEP: "OAEP",
    alg.ECDSA: "ECDSA",
    alg.ECDH: "ECDH",
}


def public_sheet(public: TpmtPublic, *, size: int, form: str = "TPMT_PUBLIC") -> Sheet:
    """Lay a public area open; `form` says how it was wrapped."""
    kind = form.lower().replace("_", "-")
    return Sheet(
        kind=kind,
        title=f"{form}: a TPM's {public.algorithm} key{_purpose(public)}",
        size=size,
        sections=(Section("Public area", public_rows(public)), Section("As PEM", _pem_rows(public))),
        document={"key": public_document(public)},
    )


def public_rows(public: TpmtPublic) -> tuple[Row, ...]:
    """The fields of a public area."""
    names = [name for bit, name in _ATTRIBUTES.items() if public.attributes >> bit & 1]
    symmetric = "null" if public.symmetric_bits is None else f"AES-{public.symmetric_bits}-CFB"
    scheme = SCHEMES[public.scheme]
    if public.scheme_hash is not None:
        scheme += f" with {alg.HASH_NAMES[public.scheme_hash].upper()}"
    rows = [
        Row(name="type", value=public.algorithm),
        Row(name="nameAlg", value=alg.HASH_NAMES[public.name_alg].upper()),
        Row(name="objectAttributes", value=f"0x{public.attributes:08x}", note=", ".join(names)),
        Row(name="authPolicy", value=public.auth_policy.hex() or "empty"),
        Row(name="symmetric", value=symmetric),
        Row(name="scheme", value=scheme),
        Row(
            name="template",
            value=public.template or "none",
            note="of the TCG EK Credential Profile" if public.template else "not an EK by any TCG template",
            alarming=public.template is None,
        ),
    ]
    key = public.key
    if isinstance(key, EccKey):
        size = key.curve.size
        rows.append(Row(name="x", value=key.x.to_bytes(size, "big").hex()))
        rows.append(Row(name="y", value=key.y.to_bytes(size, "big").hex()))
    else:
        note = "exponent 65537, written out" if key.explicit_exponent else "exponent 65537"
        rows.append(Row(name="modulus", value=f"{key.modulus:x}", note=note))
    rows.append(Row(name="Name", value=public.name.hex(), note="nameAlg and digest"))
    rows.append(Row(name="SHA-256", value=hashlib.sha256(public.encode()).hexdigest(), note="of TPMT_PUBLIC"))
    return tuple(rows)


def public_document(public: TpmtPublic) -> dict[str, Any]:
    """A public area under the names that the service gives an EK."""
    area = public.encode()
    return {
        "algorithm": public.algorithm,
        "template": public.template,
        "name": public.name.hex(),
        "sha256": hashlib.sha256(area).hexdigest(),
        "attributes": f"0x{public.attributes:08x}",
        "auth_policy": public.auth_policy.hex(),
        "tpmt_public": b64.encode(area),
        "tpm2b_public": b64.encode(public.to_tpm2b()),
        "pem": pem(public),
        "jwk": public.jwk(),
    }


def _purpose(public: TpmtPublic) -> str:
    if public.template:
        return f", an EK by template {public.template}"
    signs = bool(public.attributes >> 18 & 1)
    return f" (restricted: {yes_no(public.attributes >> 16 & 1)}, signs: {yes_no(signs)})"


def _pem_rows(public: TpmtPublic) -> tuple[Row, ...]:
    return tuple(Row(name="", value=line) for line in pem(public).splitlines())
