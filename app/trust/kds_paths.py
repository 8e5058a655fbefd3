"""The URL grammar of AMD's Key Distribution Service (KDS).

The product line is spelled Milan, Genoa or Turin, case and all; security patch levels are decimal
with at least two digits. Turin's hardware id is 8 bytes and its TCB begins with fmcSPL.
Source: AMD 57230 (VCEK certificate and KDS interface).
"""

from typing import TYPE_CHECKING

from app.wire.tcb import TcbLayout

if TYPE_CHECKING:
    from app.trust.names import VekKind
    from app.wire.product import ProductLine
    from app.wire.tcb import TcbVersion

_PARAMETERS = {
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}


def cert_chain_path(kind: "VekKind", line: "ProductLine") -> str:
    """Answered with PEM: the intermediate (ASK or ASVK), then the root."""
    return f"/{kind}/v1/{line}/cert_chain"


def crl_path(kind: "VekKind", line: "ProductLine") -> str:
    """Answered with a DER CRL, signed by the root."""
    return f"/{kind}/v1/{line}/crl"


def vcek_path(line: "ProductLine", hwid: bytes, tcb: "TcbVersion") -> str:
    """Answered with a DER VCEK certificate, or 404 if there is no such chip or TCB.

    Args:
        line: the product line; Bergamo and Siena are Genoa.
        hwid: the significant bytes of CHIP_ID: 64, or 8 on Turin.
        tcb: REPORTED_TCB, read in the layout of the line.

    Raises:
        ValueError: a hardware id or TCB of another product line.
    """
    if len(hwid) != line.hwid_size:
        raise ValueError(f"a hardware id of {line} has {line.hwid_size} bytes, not {len(hwid)}")
    if (tcb.fmc is not None) != (line.tcb_layout is TcbLayout.TURIN):
        raise ValueError(f"a TCB of {line} {'has no' if tcb.fmc is not None else 'has an'} fmc")
    query = "&".join(f"{_PARAMETERS[name]}={level:02}" for name, level in tcb.components().items())
    return f"/vcek/v1/{line}/{hwid.hex()}?{query}"
