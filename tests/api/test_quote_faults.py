"""Every check of a quote, watched failing: a whole exchange with a simulator for each fault.

The TPM is a real one. Without a fault everything passes under a policy that asks for everything;
with one, the checks that the fault names do not pass, and all others do.
"""

from collections.abc import Callable
from typing import Any

import pytest

from app.appraisal.findings import QUOTE, QUOTED
from app.config import Settings
from app.errors import ConfigError
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.software_tpm import VtpmChoice
from app.main import create_app
from app.wire import b64
from app.wire.product import ProductLine
from app.wire.tpm.attest import Attest
from tests.api.service import Service, new_nonce, outcomes
from tests.interop.software_tpm import demand

FAULTS = sorted(fault for fault in Fault if fault.effect.needs_tpm)
KNOWN_PCRS = ("0", "4", "7", "8", "9")
WARNED = {"vtpm.boot_counters": Fault.VTPM_BOOT_COUNTERS}  # of an old boot there is nothing to blame


class Relying:
    """A relying party that asks for a quote, with its own TPM behind the service."""

    def __init__(self, service: Service, *, method: str = "activate", key: str = "p256") -> None:
        self.service = service
        self.method = method
        self.key = key

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.service.post(path, json=body)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def exchange(
        self, policy: Any, last_boot: dict[str, int] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Evidence, and the verdict on it."""
        keys = self.ask("/ak", {"key": self.key})
        shown = {name: keys[name] for name in ("ek_public", "ak_public")}
        challenge = self.ask("/ak-challenges", {**shown, "method": self.method})
        parts = {
            name: part
            for name, part in challenge.items()
            if name not in {"challenge", "expires_at", "tools_file"}
        }
        answer = self.ask("/ak/activate", {"key": self.key, **parts})
        answer.pop("ak_public", None)
        nonce = b64.encode(new_nonce())
        quote = {"key": self.key, "event_log": True}
        evidence = self.ask("/attest", {"nonce": nonce, "service": "all", "quote": quote})
        activation = {"challenge": challenge["challenge"], **answer}
        body = {"nonce": nonce, "evidence": evidence, "policy": policy, "activation": activation}
        if last_boot is not None:
            body["last_boot"] = last_boot
        return evidence, self.ask("/verify", body)


def counters(evidence: dict[str, Any]) -> dict[str, int]:
    clock = Attest.parse(b64.decode(evidence["quote"]["attest"])).clock
    return {"reset_count": clock.reset_count, "restart_count": clock.restart_count}


def demanding(evidence: dict[str, Any], verdict: dict[str, Any]) -> dict[str, Any]:
    known = evidence["quote"]["pcrs"]["sha256"]
    return {
        "version": 1,
        "id": "demanding",
        "policy": {"vtpm": {"require_quote": True, "require_event_log": True, "secure_boot": True}},
        "reference_values": {
            "measurements": [{"value": verdict["claims"]["snp"]["measurement"], "name": "the image"}],
            "vtpm": {"pcrs": {"sha256": {pcr: [known[pcr]] for pcr in KNOWN_PCRS}}},
        },
    }


class Bench:
    def __init__(self, new_settings: Callable[..., Settings]) -> None:
        self.settings = new_settings(allow_simulator=True)
        with self.service(None) as service:
            self.policy = demanding(*Relying(service).exchange(None, None))

    def service(self, fault: Fault | None) -> Service:
        state = self.settings.simulator_state_dir
        backend = SimulatorBackend(line=ProductLine.GENOA, fault=fault, state_dir=state)
        return Service(create_app(self.settings, backend=backend))

    def appraise(self, fault: Fault | None, **how: str) -> dict[str, Any]:
        """The second exchange, which knows of the first one's boot."""
        with self.service(fault) as service:
            party = Relying(service, **how)
            before, _ = party.exchange(self.policy, None)
            return party.exchange(self.policy, counters(before))[1]


@pytest.fixture(scope="module")
def bench(new_settings: Callable[..., Settings]) -> Bench:
    demand("swtpm")
    return Bench(new_settings)


def not_passed(document: dict[str, Any]) -> dict[str, str]:
    found = outcomes(document).items()
    return {check: outcome for check, outcome in found if outcome not in {"passed", "not_requested"}}


@pytest.mark.parametrize("method", ["activate", "import"])
@pytest.mark.parametrize("key", ["p256", "rsa2048"])
def test_without_a_fault_everything_passes(bench: Bench, method: str, key: str) -> None:
    document = bench.appraise(None, method=method, key=key)
    assert {outcomes(document)[check] for check in QUOTE | QUOTED} == {"passed"}
    assert not_passed(document) == {"snp.simulated": "warned"}
    assert document["verdict"] == "affirming"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_checks_and_no_other(bench: Bench, fault: Fault) -> None:
    document = bench.appraise(fault)
    expected = {check: "warned" if WARNED.get(check) is fault else "failed" for check in fault.checks} | {
        "snp.simulated": "warned"
    }
    assert not_passed(document) == expected
    assert document["verdict"] == ("warning" if fault is Fault.VTPM_BOOT_COUNTERS else "contraindicated")
    assert document["genuine"] is True


def test_a_certification_can_be_wrong_as_well(bench: Bench) -> None:
    document = bench.appraise(Fault.VTPM_AK_BINDING, method="import")
    assert set(not_passed(document)) == {*Fault.VTPM_AK_BINDING.checks, "snp.simulated"}


def test_every_check_of_a_quote_has_a_fault() -> None:
    assert {fault.value for fault in FAULTS} == QUOTE | QUOTED


def test_a_fault_of_quotes_needs_a_tpm(bench: Bench) -> None:
    state = bench.settings.simulator_state_dir
    with pytest.raises(ConfigError, match=r"vtpm\.pcrs: the simulated VM has no TPM"):
        SimulatorBackend(fault=Fault.VTPM_PCRS, state_dir=state, vtpm=VtpmChoice.NONE)


@pytest.mark.parametrize("kind", ["p256", "p384"])
@pytest.mark.parametrize("method", ["activate", "import"])
def test_another_kind_of_ek_serves_as_well(
    bench: Bench, new_settings: Callable[..., Settings], kind: str, method: str
) -> None:
    settings = new_settings(allow_simulator=True, simulator_ek=kind)
    with Service(create_app(settings)) as service:
        _, verdict = Relying(service, method=method).exchange(bench.policy, None)
    assert {outcomes(verdict)[check] for check in QUOTE} == {"passed"}
    assert verdict["verdict"] == "affirming"
