"""`certs`: what verifies enters the store, from AMD's KDS or from files; the rest is said and not kept."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import respx

from tests.cli.command_line import Cli

KDS = "https://kdsintf.amd.com"
LINES = ("Milan", "Genoa", "Turin")


@pytest.fixture
def amd(
    surroundings: dict[str, str], vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[respx.MockRouter]:
    """AMD's KDS, as far as the vectors know what it answers."""
    del surroundings
    monkeypatch.setenv("SVSM_ATTEST_KDS_URL", KDS)
    with respx.mock(base_url=KDS, assert_all_called=False) as router:
        for line in LINES:
            for kind in ("vcek", "vlek"):
                chain = (vectors / "ca" / f"{line.lower()}-{kind}-cert_chain.pem").read_bytes()
                router.get(f"/{kind}/v1/{line}/cert_chain").respond(content=chain)
                crl = (vectors / "crl" / "milan-vcek-crl-2023.der").read_bytes()
                status = 200 if line == "Milan" else 404
                router.get(f"/{kind}/v1/{line}/crl").respond(status, content=crl)
        yield router


def chip_of(vectors: Path, name: str) -> str:
    return (vectors / name / "report.bin").read_bytes()[0x1A0:0x1E0].hex()


def test_fetch_a_line(amd: respx.MockRouter, cli: Cli) -> None:
    ended = cli("certs", "fetch", "--line", "Milan", "--json")
    assert ended.status == 0, ended.out
    assert [item["problem"] for item in ended.json["fetched"]] == [None] * 4
    assert amd.calls.call_count == 4
    listed = cli("certs", "list", "--json").json["entries"]
    assert {entry["what"] for entry in listed} == {
        "ARK-Milan",
        "SEV-Milan",
        "SEV-VLEK-Milan",
        "CRL of ARK-Milan",
    }
    assert {entry["state"] for entry in listed if entry["what"].startswith("CRL")} == {"over"}


def test_fetch_every_line_goes_on_after_a_failure(amd: respx.MockRouter, cli: Cli) -> None:
    ended = cli("certs", "fetch")
    assert ended.status == 3
    assert amd.calls.call_count == 12
    lines = ended.out.strip().split("\n")
    assert sum(line.startswith("fetched") for line in lines) == 8
    assert sum(line.startswith("failed") and "CRL" in line for line in lines) == 4
    assert "store: " in ended.err


@pytest.mark.parametrize(
    ("name", "line", "query"),
    [
        ("milan-v3-oak", "Milan", "blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"),
        ("turin-v5-oak", "Turin", "fmcSPL=00&blSPL=01&teeSPL=00&snpSPL=02&ucodeSPL=71"),
    ],
)
def test_fetch_the_leaf_of_a_report(
    name: str, line: str, query: str, amd: respx.MockRouter, cli: Cli, vectors: Path
) -> None:
    chip = chip_of(vectors, name)[: 16 if line == "Turin" else 128]
    leaf = (vectors / name / "vcek.der").read_bytes()
    route = amd.get(f"/vcek/v1/{line}/{chip}?{query}").respond(content=leaf)
    ended = cli("certs", "fetch", "--report", vectors / name / "report.bin", "--json")
    assert route.called
    assert ended.json["fetched"][-1]["problem"] is None
    # With it, the report is genuine offline.
    appraised = cli("verify", "--report", vectors / name / "report.bin", "--offline", "--json")
    assert appraised.json["genuine"] is True


@pytest.mark.parametrize(
    "tcb",
    [
        "04000000000018db",
        "bootloader=4, tee=0, snp=24, microcode=219",
        "microcode=219,snp=24,tee=0,bootloader=4",
    ],
)
def test_fetch_by_chip_and_tcb(tcb: str, amd: respx.MockRouter, cli: Cli, vectors: Path) -> None:
    chip = chip_of(vectors, "milan-v3-oak")
    leaf = (vectors / "milan-v3-oak" / "vcek.der").read_bytes()
    query = "blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    route = amd.get(f"/vcek/v1/Milan/{chip}?{query}").respond(content=leaf)
    ended = cli("certs", "fetch", "--line", "Milan", "--hwid", chip, "--tcb", tcb)
    assert (ended.status, route.called) == (0, True)


def test_a_turin_chip_may_be_given_as_the_report_has_it(
    amd: respx.MockRouter, cli: Cli, vectors: Path
) -> None:
    chip = chip_of(vectors, "turin-v5-oak")
    route = amd.get(url__startswith=f"{KDS}/vcek/v1/Turin/{chip[:16]}?").respond(404)
    ended = cli("certs", "fetch", "--line", "Turin", "--hwid", chip, "--tcb", "0001000200000047", "--json")
    assert (ended.status, route.called) == (3, True)
    assert ended.json["fetched"][-1]["problem"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hwid", "ab"), "go together"),
        (("--tcb", "ab"), "go together"),
        (("--hwid", "ab", "--tcb", "00" * 8), "exactly one --line"),
        (("--line", "Milan", "--hwid", "zz", "--tcb", "00" * 8), "hexadecimal"),
        (("--line", "Milan", "--hwid", "ab", "--tcb", "00" * 8), "1 bytes, a Milan chip has 64"),
        (("--line", "Turin", "--hwid", "ab" * 64, "--tcb", "00" * 8), "64 bytes, a Turin chip has 8"),
        (("--line", "Milan", "--hwid", "ab" * 64, "--tcb", "0000010000000000"), "no TCB of Milan"),
        (("--line", "Milan", "--hwid", "ab" * 64, "--tcb", "snp=1"), "bootloader=N"),
        (("--line", "Milan", "--hwid", "ab" * 64, "--tcb", "what"), "16 hexadecimal digits"),
        (
            ("--line", "Milan", "--hwid", "ab" * 64, "--tcb", "bootloader=1,tee=0,snp=300,microcode=1"),
            "does not fit one byte",
        ),
        (("--line", "Venice"), "Venice"),
    ],
)
def test_what_cannot_be_asked_for(arguments: tuple[str, ...], said: str, cli: Cli) -> None:
    ended = cli("certs", "fetch", *arguments)
    assert ended.status == 2
    assert said in ended.err


def test_reports_that_tell_no_chip(cli: Cli, vectors: Path) -> None:
    v2 = vectors / "milan-v2-baremetal-a" / "report.bin"
    untold = cli("certs", "fetch", "--report", v2)
    assert (untold.status, "Name it with --line" in untold.err) == (2, True)
    named = cli("certs", "fetch", "--report", v2, "--line", "Milan")  # nobody answers there
    assert named.status == 3
    other = cli("certs", "fetch", "--report", vectors / "milan-v3-oak" / "report.bin", "--line", "Turin")
    assert (other.status, "of a Milan processor" in other.err) == (2, True)
    both = cli("certs", "fetch", "--report", v2, "--hwid", "ab")
    assert both.status == 2
    vlek = cli("certs", "fetch", "--report", vectors / "milan-vlek-v3-aws-us-east-2" / "report.bin")
    assert (vlek.status, "CHIP_ID is zero" in vlek.err) == (2, True)
    none = cli("certs", "fetch", "--report", vectors / "genoa-v5-a" / "vcek.der")
    assert (none.status, "want 1184" in none.err) == (2, True)


def test_what_does_not_verify_is_not_stored(amd: respx.MockRouter, cli: Cli, vectors: Path) -> None:
    impostor = (vectors / "synthetic" / "genoa" / "ark.der").read_bytes()
    ask = (vectors / "synthetic" / "genoa" / "ask.der").read_bytes()
    pem = "".join(ssl.DER_cert_to_PEM_cert(raw) for raw in (ask, impostor))
    amd.get("/vcek/v1/Genoa/cert_chain").respond(text=pem)
    amd.get("/vlek/v1/Genoa/cert_chain").respond(404)
    wrong = (vectors / "crl" / "milan-vcek-crl-2023.der").read_bytes()
    amd.get("/vcek/v1/Turin/crl").respond(content=wrong)
    genoa = cli("certs", "fetch", "--line", "Genoa", "--json")
    assert genoa.status == 3
    problems = [item["problem"] for item in genoa.json["fetched"]]
    assert "is not stored" in problems[0]
    assert problems[1] is not None
    turin = cli("certs", "fetch", "--line", "Turin", "--json")
    assert "is not stored" in turin.json["fetched"][1]["problem"]
    listed = {entry["what"] for entry in cli("certs", "list", "--json").json["entries"]}
    assert listed == {"ARK-Turin", "SEV-Turin", "SEV-VLEK-Turin"}


def test_offline_asks_nobody(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_OFFLINE", "true")
    ended = cli("certs", "fetch", "--json")
    assert (ended.status, ended.json["type"]) == (3, "urn:svsm-attest:problem:collateral-unavailable")


def test_a_store_that_cannot_be_written(amd: respx.MockRouter, cli: Cli, vectors: Path) -> None:
    del amd
    for arguments in (("fetch", "--line", "Milan"), ("import", vectors / "ca")):
        ended = cli("certs", *arguments, "--store", "/proc/nowhere")
        assert ended.status == 2
        assert "cannot be written" in ended.err


def test_import_files_folders_and_tables(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    for number, files in enumerate(
        (
            (vectors / "certtable" / "genoa-good.bin",),
            (vectors / "genoa-v5-a", vectors / "ca"),
            (vectors / "genoa-v5-a" / "vcek.der", vectors / "ca" / "genoa-vcek-cert_chain.pem"),
        )
    ):
        store = tmp_path / f"store-{number}"
        ended = cli("certs", "import", *files, "--store", store)
        assert ended.status == 0
        assert "VCEK Genoa" in ended.out
        appraised = cli(
            "verify",
            "--report",
            vectors / "genoa-v5-a" / "report.bin",
            "--store",
            store,
            "--offline",
            "--json",
        )
        assert appraised.json["genuine"] is True


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("synthetic/genoa/ark.der", "not a root that is trusted here"),
        ("negative/genoa-v5-a--leaf-signature-bitflip/vcek.der", "not signed"),
        ("milan-vlek-v3-aws-us-east-2/vlek.der", "comes with the evidence"),
        ("genoa-v5-a/report.bin", "no certificate or CRL found"),
        ("synthetic/genoa/svsm-vtpm-good/nonce.bin", "neither PEM, nor DER"),
        ("genoa-v5-a/missing.der", "No such file"),
        ("certtable/genoa-empty.bin", "no certificate or CRL found"),
    ],
)
def test_import_takes_nothing_else(name: str, said: str, cli: Cli, vectors: Path, tmp_path: Path) -> None:
    store = tmp_path / "fresh"
    ended = cli("certs", "import", vectors / "ca", vectors / name, "--store", store, "--json")
    assert ended.status == 2
    assert said in ended.json["detail"]
    assert not store.exists()  # all of them, or none


def test_import_under_an_extra_root(cli: Cli, vectors: Path) -> None:
    synthetic = vectors / "synthetic" / "genoa"
    files = [synthetic / name for name in ("ark.der", "ask.der", "vcek.der")]
    ended = cli("certs", "import", *files, "--trust-root", synthetic / "ark.der", "--json")
    assert ended.status == 0
    assert len(ended.json["imported"]) == 3


def test_list_shows_validity_and_damage(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert cli("certs", "list").out == ""
    cli("certs", "import", vectors / "ca", vectors / "crl")
    (store / "ca" / "broken.der").write_bytes(b"rubbish")
    ended = cli("certs", "list")
    assert ended.status == 0
    rows = ended.out.split("\n")
    assert rows[0].split() == ["State", "What", "From", "Until", "File"]
    assert any(row.startswith("valid") and "ARK-Turin" in row and "2048-05-15" in row for row in rows)
    assert any(row.startswith("over") and "CRL" in row for row in rows)
    assert any(row.startswith("damaged") and "broken.der" in row for row in rows)
    assert f"store: {store}" in ended.err
