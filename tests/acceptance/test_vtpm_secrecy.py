"""What nobody else is to know of an exchange stands in no log, at no level, and in no refusal."""

import os
from pathlib import Path

from tests.acceptance.own_process import serving
from tests.acceptance.tool_guest import Json, b64, unb64
from tests.interop.software_tpm import demand

PARTS = ("method", "credential_blob", "encrypted_secret", "public_area", "duplicate", "encrypted_seed")


def forms(raw: bytes) -> set[str]:
    """As a log might have it; the first half is enough."""
    half = raw[: len(raw) // 2]
    return {b64(raw)[: len(raw) // 2], half.hex(), half.hex().upper(), repr(half)[2:-1]}


def test_nothing_of_an_exchange_is_in_log_or_refusal(simulator_state: Path, tmp_path: Path) -> None:
    demand("swtpm")
    log = tmp_path / "log"
    secret: list[bytes] = []
    said = ""
    with serving(simulator_state, log, LOG_LEVEL="debug") as (_, client):

        def post(path: str, **body: object) -> Json:
            nonlocal said
            answer = client.post(path, json=body)
            if not answer.is_success:
                said += answer.text
            document: Json = answer.json()
            return document

        keys = post("/ak")
        shown = {name: keys[name] for name in ("ek_public", "ak_public")}
        for method in ("activate", "import"):
            challenge = post("/ak-challenges", **shown, method=method)
            parts = {name: challenge[name] for name in PARTS if name in challenge}
            answer = post("/ak/activate", **parts)
            answer.pop("ak_public", None)
            nonce = os.urandom(64)
            secret += [nonce, challenge["challenge"].encode(), *map(unb64, answer.values())]
            secret += [unb64(part) for name, part in parts.items() if name != "method"]
            evidence = post("/attest", nonce=b64(nonce), quote={"event_log": True})
            activation = {"challenge": challenge["challenge"], **answer}
            appraisal = {"nonce": b64(nonce), "evidence": evidence, "activation": activation}
            # Refused for everything that can be wrong with it, before it is used at last, and replayed.
            wrong: list[Json] = [
                {"nonce": b64(nonce[:-1])},
                {"evidence": {**evidence, "report": b64(nonce)}},
                {"activation": {**activation, "colour": b64(nonce)}},
                {"activation": {**activation, "challenge": challenge["challenge"] + "\n" * 60}},
                {"activation": [activation]},
                {"policy": b64(nonce)},
                {"policy": {"version": 1, "id": b64(nonce)}},
                {b64(nonce): activation},
            ]
            for changed in wrong:
                said_before = said
                post("/verify", **{**appraisal, **changed})
                assert said != said_before, changed
            for verdict in ("affirming", "contraindicated"):
                assert post("/verify", **appraisal)["verdict"] == verdict
            post("/ak/activate", **{**parts, "key": b64(nonce)})
            post("/ak/activate", **{name: b64(nonce) for name in parts})
            client.get(f"/attest?nonce={nonce.hex()}&nonce={nonce.hex()}")
            said += client.get(f"/{nonce.hex()}?{nonce.hex()}").text
    written = log.read_text()
    assert '"event": "challenge_answered"' in written
    assert '"event": "appraised"' in written
    for one in secret:
        assert [form for form in forms(one) if form in written] == []
        assert [form for form in forms(one) if form in said] == []
