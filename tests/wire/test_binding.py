import hashlib
from pathlib import Path

import pytest

from app.errors import NonceError
from app.wire.binding import NONCE_SIZE, SVSM_VMPL, demand_nonce, expected_report_data
from app.wire.report import AttestationReport
from tests.wire.samples import NONCE, SWTPM_EK


def test_report_data_of_a_real_ek() -> None:
    # SHA-512 over 64 zero bytes and the 314 bytes of the EK, computed outside this code
    assert expected_report_data(bytes(64), SWTPM_EK).hex() == (
        "d55b5b1ae565f13b71271833e38f6d741089299c6728e8376a298f85efa6b8cf"
        "8e29788b6f4c05f55e7ccaed6910759ddf0dc561fffc9be0abc553f39becd9d9"
    )


def test_nonce_first_and_nothing_between() -> None:
    assert expected_report_data(NONCE, b"manifest") == hashlib.sha512(NONCE + b"manifest").digest()
    assert expected_report_data(NONCE, b"manifest") != hashlib.sha512(b"manifest" + NONCE).digest()


@pytest.mark.parametrize("size", [0, 1, 32, 63, 65, 128])
def test_a_nonce_is_never_padded_cut_or_hashed(size: int) -> None:
    with pytest.raises(NonceError, match=f"^nonce: {size} bytes, want exactly 64$"):
        demand_nonce(bytes(size))


def test_a_nonce_of_64_bytes_passes_through() -> None:
    assert demand_nonce(NONCE) is NONCE
    assert (NONCE_SIZE, SVSM_VMPL) == (64, 0)


@pytest.mark.parametrize(
    ("case", "manifest", "bound"),
    [
        ("good", "manifest-tpmt_public.bin", True),
        ("vmpl1", "manifest-tpmt_public.bin", True),  # bound, yet not by the SVSM
        ("short-nonce", "manifest-tpmt_public.bin", True),
        ("swapped-order", "manifest-tpmt_public.bin", False),
        ("other-nonce", "manifest-tpmt_public.bin", False),
        ("tpm2b", "manifest-tpm2b_public.bin", False),
        ("manifest-trailing", "manifest-tpmt_public.bin", False),
    ],
)
def test_synthetic_svsm_reports(vectors: Path, case: str, manifest: str, *, bound: bool) -> None:
    folder = vectors / "synthetic" / "genoa" / f"svsm-vtpm-{case}"
    report = AttestationReport.parse((folder / "report.bin").read_bytes())
    expected = expected_report_data((folder / "nonce.bin").read_bytes(), (folder / manifest).read_bytes())
    assert (report.report_data == expected) is bound
    assert report.vmpl == (1 if case == "vmpl1" else SVSM_VMPL)
