from cryptography import x509

from app.trust.issuance import find_issuer, is_issued_by
from tests.trust import pki
from tests.trust.evidence import milan


def test_a_real_chain_is_linked_and_only_in_its_order() -> None:
    leaf, intermediate, root = milan().certificates
    assert is_issued_by(leaf, intermediate)
    assert is_issued_by(intermediate, root)
    assert is_issued_by(root, root)
    assert not is_issued_by(leaf, root)
    assert not is_issued_by(root, intermediate)


def test_the_same_name_in_another_string_type_is_another_name(ask: x509.Certificate) -> None:
    spelled = pki.ORGANISATION[-1][1]
    other = x509.Name(
        [
            *(x509.NameAttribute(oid, value) for oid, value in pki.ORGANISATION[:-1]),
            x509.NameAttribute(pki.ORGANISATION[-1][0], spelled, x509.name._ASN1Type.PrintableString),
            *pki.named("SEV-Milan", ()),
        ]
    )
    leaf = pki.vcek().but(issuer=other).issue()
    assert leaf.issuer == ask.subject  # to cryptography
    assert not is_issued_by(leaf, ask)


def test_of_several_of_a_name_the_one_that_signed_is_found(ask: x509.Certificate) -> None:
    withdrawn = pki.ask().but(key=pki.rsa_key("stranger"), serial=7).issue()
    vcek = pki.vcek().issue()
    assert find_issuer(vcek, (withdrawn, ask)) == ask
    assert find_issuer(vcek, (ask, withdrawn)) == ask
    other = pki.vcek().but(signer=pki.rsa_key("other ark")).issue()
    assert find_issuer(other, (withdrawn, ask)) == withdrawn  # for want of a better one
    assert find_issuer(vcek, (pki.ark().issue(),)) is None
    assert find_issuer(vcek, ()) is None
