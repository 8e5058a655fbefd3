from app.wire import guid


def test_services_are_stored_mixed_endian() -> None:
    assert guid.SERVICES_MANIFEST.bytes_le.hex() == "bb9e8463923d7046a1ff58f9c94b87bb"
    assert guid.SERVICE_VTPM.bytes_le.hex() == "ebf176c42301a5459641b4e7dde5bfe3"
    assert guid.SERVICE_UEFI_MM.bytes_le.hex() == "593a45a41b9e8747a0331986d6adbe55"


def test_certificates_are_stored_in_text_order() -> None:
    assert guid.VCEK.bytes.hex() == "63da758de6644564adc5f4b93be8accd"
    assert guid.VLEK.bytes.hex() == "a8074bc2a25a483eaae639c045a0b8a1"
    assert guid.ASK.bytes.hex() == "4ab7b379bbac4fe4a02f05aef327c782"
    assert guid.ARK.bytes.hex() == "c0b406a4a803495297433fb6014cd0ae"
    assert guid.CRL.bytes.hex() == "92f81bc358114d3d97ffd19f88dc67ea"
    assert guid.EXTRA_PLATFORM_INFO.bytes.hex() == "ecae0c0f950243b1afa20ae2e0d565b6"


def test_no_known_guid_is_another_with_its_bytes_swapped() -> None:
    # Otherwise an entry of a certificate table could be read as either.
    swapped = {name.bytes_le for name in guid.NAMES}
    assert not swapped & {name.bytes for name in guid.NAMES}
    assert guid.NULL.bytes == bytes(16)
    assert guid.NULL not in guid.NAMES
    assert all(len(name.bytes) == guid.SIZE for name in guid.NAMES)
