"""Our attester over HTTP, judged by tpm2-tools and tpm2-pytss on the very same TPM."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import session
from tests.acceptance.both_roles import BothRoles, both_roles, objections, whole_round
from tests.acceptance.tool_guest import Json, b64, unb64
from tests.api.services import SettingsMaker
from tests.interop.software_tpm import SoftwareTpm, demand
from tests.interop.tool_bridge import tool_bridge

SECRET = bytes(range(1, 33))
KEYS = ("p256", "rsa2048")
SOME = [0, 1, 2, 4, 7, 14, 23]  # tpm2_checkquote 5.4 does not take more than seven


@pytest.fixture(scope="module", params=["rsa2048", "p256", "p384"])
def ek_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def roles(new_settings: SettingsMaker, ek_kind: str) -> Iterator[BothRoles]:
    """Both roles; the attester has the simulated VM's TPM."""
    demand("swtpm", "tpm2_checkquote", "tpm2_makecredential")
    settings = new_settings(allow_simulator=True, simulator_ek=ek_kind)
    with both_roles(settings) as running:
        yield running


@pytest.fixture(scope="module")
def tools(roles: BothRoles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """The tools on the TPM that the attester uses at the same time."""
    assert roles.simulator.vtpm is not None
    with tool_bridge(tmp_path_factory.mktemp("tools"), roles.simulator.vtpm.open()) as bridged:
        yield bridged


TOOL_KINDS = {"rsa2048": "rsa", "p256": "ecc", "p384": "ecc384"}


def test_the_manifest_is_the_key_of_tpm2_createek(roles: BothRoles, tools: SoftwareTpm, ek_kind: str) -> None:
    manifest = unb64(roles.ask("/attest", nonce=b64(os.urandom(64)))["manifest"])
    ek = roles.client.get("/ek").json()
    made = ("-G", TOOL_KINDS[ek_kind], "-c", "ek.ctx", "-u", "ek", "-f", "tpmt")
    tools.run("tpm2_createek", "-Q", *made)
    assert tools.read("ek") == manifest
    for form, ours in (("tss", unb64(ek["tpm2b_public"])), ("pem", ek["pem"].encode())):
        tools.run("tpm2_readpublic", "-Q", "-c", "ek.ctx", "-f", form, "-o", "ek", "-n", "name")
        assert tools.read("ek") == ours
    assert tools.read("name").hex() == ek["name"] == roles.ask("/ak")["ek_name"]
    assert ek["live"]["state"] == "matches"
    assert unb64(ek["tpmt_public"]) == manifest


def judged(folder: Path, quote: Json, qualifying: bytes, pem: str, pcrs: list[int] | None = None) -> bool:
    """What tpm2_checkquote says, which needs no TPM for it."""
    files = {"attest": unb64(quote["attest"]), "signature": unb64(quote["signature"]), "pem": pem.encode()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = ["tpm2_checkquote", "-Q", "-u", "pem", "-m", "attest", "-s", "signature"]
    command += ["-q", qualifying.hex()]
    if pcrs is not None:
        values = [bytes.fromhex(quote["pcrs"]["sha256"][str(pcr)]) for pcr in pcrs]
        (folder / "values").write_bytes(b"".join(values))
        command += ["-f", "values", "-l", f"sha256:{','.join(map(str, pcrs))}"]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True).returncode == 0


@pytest.mark.parametrize("key", KEYS)
def test_our_quotes_are_good_for_tpm2_checkquote(
    roles: BothRoles, tools: SoftwareTpm, tmp_path: Path, key: str
) -> None:
    """Alone and in a session, with what docs/session.md says was quoted."""
    ak, nonce = roles.ask("/ak", key=key), os.urandom(64)
    name = bytes.fromhex(ak["name"])
    pcrs = {"sha256": SOME}
    alone = roles.ask("/quote", nonce=b64(nonce), key=key, pcrs=pcrs)
    expected = session.qualifying(nonce, name, None)
    assert judged(tmp_path, alone, expected, ak["pem"], SOME)
    assert not judged(tmp_path, alone, expected[:-1], ak["pem"], SOME)
    alone["pcrs"]["sha256"]["7"] = "ff" * 32
    assert not judged(tmp_path, alone, expected, ak["pem"], SOME)

    evidence = roles.ask("/attest", nonce=b64(nonce), quote={"key": key})
    report, manifest = unb64(evidence["report"]), unb64(evidence["manifest"])
    data = session.report_data(session.report_nonce(nonce, name), manifest)
    assert report[0x50:0x90] == data
    quote = evidence["quote"]
    assert judged(tmp_path, quote, session.qualifying(nonce, name, report), ak["pem"])
    assert not judged(tmp_path, quote, expected, ak["pem"])
    tools.run("tpm2_pcrread", "-Q", "sha256:all", "-o", "values")
    values = tools.read("values")
    assert quote["pcrs"]["sha256"] == {str(pcr): values[32 * pcr :][:32].hex() for pcr in range(24)}


def by_tools(folder: Path, ek: bytes, name: str) -> tuple[bytes, bytes]:
    """What tpm2_makecredential makes: a file with both parts after magic and version."""
    (folder / "ek").write_bytes(len(ek).to_bytes(2, "big") + ek)
    (folder / "plain").write_bytes(SECRET)
    command = ["tpm2_makecredential", "-Q", "-T", "none", "-u", "ek", "-n", name, "-s", "plain"]
    subprocess.run([*command, "-o", "made"], check=True, cwd=folder, capture_output=True)
    raw = (folder / "made").read_bytes()
    assert raw[:8] == bytes.fromhex("badcc0de 00000001")
    size = 10 + int.from_bytes(raw[8:10], "big")
    return raw[8:size], raw[size:]


def by_pytss(_folder: Path, ek: bytes, name: str) -> tuple[bytes, bytes]:
    """What tpm2-pytss makes."""
    missing = "tpm2-pytss is not installed (make test builds it)"
    tss: Any = pytest.importorskip("tpm2_pytss", reason=missing)
    utils: Any = pytest.importorskip("tpm2_pytss.utils", reason=missing)
    public = tss.TPM2B_PUBLIC.unmarshal(len(ek).to_bytes(2, "big") + ek)[0]
    blob, secret = utils.make_credential(public, SECRET, tss.TPM2B_NAME(bytes.fromhex(name)))
    return bytes(blob.marshal()), bytes(secret.marshal())


Maker = Callable[[Path, bytes, str], tuple[bytes, bytes]]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("maker", [by_tools, by_pytss])
def test_challenges_of_others_are_solved(roles: BothRoles, tmp_path: Path, maker: Maker, key: str) -> None:
    ak = roles.ask("/ak", key=key)
    blob, secret = maker(tmp_path, unb64(ak["ek_public"]), ak["name"])
    parts = {"credential_blob": b64(blob), "encrypted_secret": b64(secret)}
    assert roles.ask("/ak/activate", key=key, **parts) == {"secret": b64(SECRET)}
    other = next(kind for kind in KEYS if kind != key)
    roles.ask("/ak", key=other)
    answer = roles.post("/ak/activate", key=other, **parts)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:svsm-attest:problem:challenge-refused"


@pytest.mark.parametrize("method", ["activate", "import"])
@pytest.mark.parametrize("key", KEYS)
def test_and_the_verifier_agrees(roles: BothRoles, key: str, method: str) -> None:
    verdict = whole_round(roles, key, method=method)
    assert (objections(verdict), verdict["verdict"]) == ({}, "affirming")
    claims = verdict["claims"]["vtpm"]
    assert (claims["ak_name"], claims["ak_binding"]) == (roles.ask("/ak", key=key)["name"], method)
