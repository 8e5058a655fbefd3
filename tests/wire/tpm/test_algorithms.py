import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from app.wire.tpm import algorithms as alg
from tests.wire.samples import CURVES, LEADING_ZERO_SCALARS, point


@pytest.mark.parametrize("curve", [alg.P256, alg.P384], ids=lambda curve: curve.name)
def test_points_that_openssl_made_are_on_the_curve(curve: alg.Curve) -> None:
    for scalar in (1, 2, 3, 2**200 + 1, curve.p // 3):
        x, y = (int.from_bytes(part, "big") for part in point(curve.name, scalar))
        assert curve.holds(x, y)
        assert curve.holds(x, curve.p - y)  # its negative
        assert not curve.holds(x, y ^ 1)
        assert not curve.holds(y, x)


@pytest.mark.parametrize("curve", [alg.P256, alg.P384], ids=lambda curve: curve.name)
def test_openssl_refuses_points_off_the_curve_too(curve: alg.Curve) -> None:
    x, y = (int.from_bytes(part, "big") for part in point(curve.name, 7))
    for bad in ((x, y ^ 1), (x ^ 1, y), (0, 0)):
        assert not curve.holds(*bad)
        with pytest.raises(ValueError, match="not on the curve"):
            ec.EllipticCurvePublicNumbers(*bad, CURVES[curve.name]).public_key()
    for beyond in ((x + curve.p, y), (x, y + curve.p)):  # OpenSSL reduces these and says nothing
        assert not curve.holds(*beyond)


@pytest.mark.parametrize("curve", [alg.P256, alg.P384], ids=lambda curve: curve.name)
def test_the_curves_numbers(curve: alg.Curve) -> None:
    openssl = CURVES[curve.name]
    assert (curve.size, curve.p.bit_length()) == (openssl.key_size // 8, openssl.key_size)
    assert alg.CURVES[curve.identifier] is curve
    # x = 0 is on both curves: y^2 = b has a root, since p = 3 mod 4 and b is a square
    root = pow(curve.b, (curve.p + 1) // 4, curve.p)
    assert curve.holds(0, root)
    ec.EllipticCurvePublicNumbers(0, root, openssl).public_key()


def test_the_hashes_are_hashlibs() -> None:
    sizes = {number: hashlib.new(name).digest_size for number, name in alg.HASH_NAMES.items()}
    assert sizes == alg.HASH_SIZES


@pytest.mark.parametrize(("where", "scalar"), LEADING_ZERO_SCALARS.items())
def test_the_samples_have_the_leading_zero_they_promise(where: tuple[str, str], scalar: int) -> None:
    curve, coordinate = where
    assert point(curve, scalar)["xy".index(coordinate)][0] == 0
