import contextlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.appraisal.policy import Policy, default_policy
from app.appraisal.policy_document import MAX_SIZE, parse_policy, policy_from
from app.errors import PolicyError
from app.wire.product import Cpuid, ProductLine
from app.wire.tpm.pcr import PcrSelection

DIGEST = "ab" * 48

# Every key that the format has, as an operator would write it.
WHOLE = f"""
version: 1
id: prod
root_of_trust:
  product_lines: [Milan, Genoa]
  cabundle_paths: []
  check_crl: true
  crl_unavailable: deny
  disallow_network: true
  allow_simulator: false
  allow_masked_chip_id: true
policy:
  minimum_report_version: 3
  minimum_guest_svn: 7
  guest_policy:
    {{debug: false, migrate_ma: false, smt: true, cxl: false, single_socket: true, abi_major: 1,
     abi_minor: 55, mem_aes_256_xts: true, rapl_dis: true, ciphertext_hiding: true, page_swap_disable: true}}
  vmpl: 0
  minimum_tcb:
    Milan: {{bootloader: 4, tee: 0, snp: 0x18, microcode: 219}}
    Turin: {{fmc: 0, bootloader: 1, tee: 0, snp: 1, microcode: 1}}
  minimum_launch_tcb: {{Milan: {{snp: 20}}}}
  recommended_tcb: {{Milan: {{snp: 27}}}}
  minimum_microcode: {{19/01/01: 0xDB}}
  recommended_microcode: {{19/01/01: 0xDE}}
  minimum_version: "1.55"
  minimum_build: 21
  permit_provisional_firmware: false
  platform_info: {{smt: any, tsme: true, ecc: any, rapl_disabled: any, ciphertext_hiding: any, tio: false,
                   alias_check_complete: true, required_set: 0x20, required_clear: 0x80}}
  mitigation_vectors: {{19/01/01: {{launch: 0x0b, current: 0x0b}}}}
  require_author_key: false
  require_id_block: false
  trusted_id_key_hashes: ["{DIGEST}"]
  trusted_author_key_hashes: []
  host_data: ["{"cd" * 32}"]
  family_id: "{"01" * 16}"
  image_id: null
  chip_ids: ["{"ef" * 64}", "{"0123456789abcdef"}"]
  csp_ids: [CN=cc-us-east-2.amazonaws.com]
  vtpm: {{require_quote: true, pcrs: {{sha384: [7, 0], sha256: ["4", 0x05]}}, require_event_log: true,
          secure_boot: true}}
  required_claims: [hardware, configuration]
reference_values:
  measurements:
    - {{value: "{DIGEST}", name: svsm-2026.1, not_after: 2027-01-01, state: allowed, attest_feature: false}}
    - {{value: "{"00" * 48}", name: old, state: denied}}
  vtpm:
    manifest_versions: ["0", "1"]
    ek_templates: [L-1]
    ek_sha256: ["{"aa" * 32}"]
    pcrs:
      sha384: {{7: ["{"07" * 48}"]}}
      sha256: {{"4": ["{"04" * 32}", "{"05" * 32}"], 0: ["{"00" * 32}"]}}
"""


def test_every_key_of_the_format_is_read() -> None:
    policy = parse_policy(WHOLE.encode())
    assert policy.id == "prod"
    assert policy.root_of_trust.product_lines == (ProductLine.MILAN, ProductLine.GENOA)
    assert policy.policy.minimum_tcb[ProductLine.MILAN].snp == 0x18
    assert policy.policy.chip_ids[1] == bytes.fromhex("0123456789abcdef") + bytes(56)
    assert policy.reference_values.measurements[0].value == bytes.fromhex(DIGEST)
    assert str(policy.reference_values.measurements[0].not_after) == "2027-01-01"
    assert policy.policy.vtpm.selection == PcrSelection.of({"sha256": [4, 5], "sha384": [0, 7]})
    known = policy.reference_values.vtpm.pcrs
    assert list(known) == ["sha256", "sha384"]
    assert known["sha256"] == {4: (b"\x04" * 32, b"\x05" * 32), 0: (bytes(32),)}
    assert policy.policy.minimum_microcode[str(Cpuid(family=0x19, model=1, stepping=1))] == 0xDB


def test_yaml_and_json_of_one_document_are_one_policy() -> None:
    from_yaml = parse_policy(WHOLE.encode())
    as_json = json.dumps(yaml.safe_load(WHOLE), default=str)
    assert parse_policy(as_json.encode()) == from_yaml
    assert parse_policy(as_json.encode()).digest == from_yaml.digest


def test_a_policy_survives_being_written_out() -> None:
    policy = parse_policy(WHOLE.encode())
    assert parse_policy(json.dumps(policy.model_dump(mode="json")).encode()) == policy


def test_the_digest_tells_policies_apart_and_nothing_else() -> None:
    assert default_policy().digest == default_policy().digest
    assert parse_policy(WHOLE.encode()).digest != default_policy().digest
    assert (
        parse_policy(WHOLE.replace("svsm-2026.1", "svsm-2026.2").encode()).digest
        != parse_policy(WHOLE.encode()).digest
    )


def test_the_order_of_banks_and_registers_makes_no_other_policy() -> None:
    one = '{"version": 1, "id": "x", "policy": {"vtpm": {"pcrs": {"sha256": [0, 7], "sha384": [1]}}}}'
    other = '{"version": 1, "id": "x", "policy": {"vtpm": {"pcrs": {"sha384": [1], "sha256": [7, 0]}}}}'
    first, second = parse_policy(one.encode()), parse_policy(other.encode())
    assert first.digest == second.digest
    assert first.policy.vtpm.selection == second.policy.vtpm.selection


def test_the_built_in_policy_asks_for_no_quote_but_knows_what_is_quoted() -> None:
    asked = default_policy().policy.vtpm
    assert not asked.require_quote
    assert not asked.require_event_log
    assert asked.secure_boot == "any"
    assert asked.selection == PcrSelection.of({"sha256": range(24)})


def test_the_built_in_policy_is_safe() -> None:
    policy = default_policy()
    assert not policy.policy.guest_policy.debug
    assert not policy.policy.guest_policy.migrate_ma
    assert policy.reference_values.measurements == ()
    assert policy.root_of_trust.check_crl
    assert not policy.root_of_trust.allow_masked_chip_id


BAD = {
    "[]": "want a mapping",
    "just text": "want a mapping",
    "": "want a mapping",
    "version: 1": "policy at id",
    "version: 2\nid: x": "policy at version",
    "version: true\nid: x": "policy at version",
    "version: 1.0\nid: x": "policy at version",
    "version: 1\nid: ''": "policy at id",
    "version: 1\nid: ../x": "policy at id",
    "version: 1\nid: x\nfoo: 1": "policy at foo: unknown key",
    "version: 1\nid: x\npolicy: {guest_policy: {debugg: true}}": "policy/guest_policy/debugg: unknown key",
    "version: 1\nid: x\npolicy: {guest_policy: {debug: 0}}": "policy/guest_policy/debug",
    "version: 1\nid: x\npolicy: {minimum_tcb: {Milan: {snp: 256}}}": "policy/minimum_tcb/Milan/snp",
    "version: 1\nid: x\npolicy: {minimum_tcb: {Rome: {snp: 1}}}": "policy/minimum_tcb/Rome",
    "version: 1\nid: x\npolicy: {minimum_tcb: {Milan: {bl: 1}}}": "policy/minimum_tcb/Milan/bl: unknown key",
    "version: 1\nid: x\npolicy: {minimum_microcode: {Milan: 1}}": "policy/minimum_microcode/Milan",
    "version: 1\nid: x\npolicy: {minimum_version: 1.55}": "policy/minimum_version",
    "version: 1\nid: x\npolicy: {minimum_version: '1'}": "policy/minimum_version",
    "version: 1\nid: x\npolicy: {vmpl: 4}": "policy/vmpl",
    "version: 1\nid: x\npolicy: {chip_ids: [abcd]}": "policy/chip_ids/0: 2 bytes",
    "version: 1\nid: x\npolicy: {host_data: [zz]}": "policy/host_data/0: not hexadecimal",
    "version: 1\nid: x\npolicy: {host_data: ['ab cd']}": "policy/host_data/0: not hexadecimal",
    "version: 1\nid: x\npolicy: {host_data: [12]}": "policy/host_data/0: want a string",
    "version: 1\nid: x\npolicy: {required_claims: [trust]}": "policy/required_claims/0",
    "version: 1\nid: x\npolicy: {platform_info: {smt: maybe}}": "policy/platform_info/smt",
    "version: 1\nid: x\nroot_of_trust: {cabundle_paths: [/etc/passwd]}": "root_of_trust/cabundle_paths",
    "version: 1\nid: x\nreference_values: {measurements: [{value: abcd, name: n}]}": "measurements/0/value",
    "version: 1\nid: x\nreference_values: {vtpm: {ek_templates: [L-9]}}": "vtpm/ek_templates/0",
    "version: 1\nid: x\npolicy: {vtpm: {require_quote: 1}}": "policy/vtpm/require_quote",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {}}}": "policy/vtpm/pcrs",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha1: [0]}}}": "banks are sha256, sha384, sha512",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha256: []}}}": "policy/vtpm/pcrs/sha256",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha256: [24]}}}": "numbered from 0 to 23",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha256: [-1]}}}": "numbered from 0 to 23",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha256: [true]}}}": "numbered from 0 to 23",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha256: ['07']}}}": "numbered from 0 to 23",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha256: [1.0]}}}": "numbered from 0 to 23",
    "version: 1\nid: x\npolicy: {vtpm: {pcrs: {sha256: [7, '7']}}}": "named twice",
    "version: 1\nid: x\npolicy: {vtpm: {secure_boot: maybe}}": "policy/vtpm/secure_boot",
    "version: 1\nid: x\npolicy: {vtpm: {permit_sha1: true}}": "policy/vtpm/permit_sha1: unknown key",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha256: {0: [abcd]}}}}": "PCR 0: want values of 32",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha1: {0: [abcd]}}}}": "banks are sha256",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha256: {24: [abcd]}}}}": "numbered from 0 to 23",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha256: {0: []}}}}": "vtpm/pcrs/sha256/0",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha256: {0: abcd}}}}": "vtpm/pcrs/sha256/0",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha256: {}}}}": "vtpm/pcrs/sha256",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha256: [0]}}}": "vtpm/pcrs/sha256",
    "version: 1\nid: x\nreference_values: {vtpm: {pcrs: {sha256: {7: [ab], '7': [cd]}}}}": "named twice",
    "version: 1\nid: x\nid: y": "line 3, column 1: id occurs twice",
    "a: &x 1\nb: *x": "aliases are not allowed",
    "? [a]\n: 1": "",
    "a: [": "line",
    "a: !!python/object:os.system {}": "line",
    "a: \0": "special characters",
    "[" * 5000: "nested too deeply",
    '{"version": 1, "id": "x", "id": "y"}': "id occurs twice",
    '{"version": 1,}': "line 1, column",
    '{"a":' * 5000: "",
    '{"version": ' + "9" * 5000 + "}": "",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:40].replace("\n", " "))
def test_a_bad_document_is_refused_at_its_place(text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode())
    assert BAD[text] in str(caught.value)


def test_bytes_that_are_no_text_and_documents_that_are_too_long_are_refused() -> None:
    with pytest.raises(PolicyError, match="not UTF-8 at byte 9"):
        parse_policy(b"version: \xff")
    with pytest.raises(PolicyError, match="at most"):
        parse_policy(b" " * (MAX_SIZE + 1))


def test_several_faults_are_counted() -> None:
    with pytest.raises(PolicyError, match=r"\(and 1 more\)"):
        policy_from({"version": 1, "id": "x", "a": 1, "b": 2})


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_policy_error(raw: bytes) -> None:
    with pytest.raises(PolicyError):
        parse_policy(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["root_of_trust", "policy", "reference_values", "id", "version"]),
    st.sampled_from(["minimum_tcb", "measurements", "guest_policy", "chip_ids", "product_lines", "x"]),
    JSON,
)
def test_arbitrary_values_at_known_places_are_read_or_refused(section: str, key: str, value: object) -> None:
    document: dict[str, object] = {"version": 1, "id": "x", section: {key: value}}
    with contextlib.suppress(PolicyError):
        assert isinstance(policy_from(document), Policy)
