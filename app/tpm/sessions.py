"""Policy sessions, and how the use of an EK is authorized.

An EK of the low range may be used by whoever satisfies its policy, PolicySecret(endorsement); one of
the high range also by its empty password, and that is enough. A TPM has three places for sessions,
and a command that fails does not give its session's place back.
Sources: TCG TPM 2.0 Library, Part 1, 19 (authorization and sessions); Part 3, TPM2_StartAuthSession,
TPM2_PolicySecret; TCG EK Credential Profile for TPM Family 2.0, annex B.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from app.tpm.command import MAX_DIGEST, Answer, Command, CommandCode, bounded, read_ticket
from app.tpm.dispatch import Dispatcher
from app.tpm.handles import ENDORSEMENT, NULL, PASSWORD, POLICY_SESSIONS
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields
from app.wire.tpm.public import TpmtPublic

_POLICY = 0x01  # TPM_SE_POLICY
_NONCE_SIZE = 16
_USER_WITH_AUTH = 1 << 6  # TPMA_OBJECT
_AUTH_TICKET = 0x8023  # TPM_ST_AUTH_SECRET


class SessionCommands(Dispatcher):
    """TPM2_StartAuthSession and TPM2_PolicySecret."""

    @contextmanager
    def policy_session(self, hash_alg: int) -> Iterator[int]:
        """A policy session, without salt and bound to nothing; it leaves the TPM with the block."""
        parts = (
            fields.to_tpm2b(secrets.token_bytes(_NONCE_SIZE)),
            fields.to_tpm2b(b""),  # encryptedSalt
            bytes([_POLICY]),
            fields.p16(alg.NULL, hash_alg),
        )
        command = Command(
            CommandCode.START_AUTH_SESSION, (NULL, NULL), parameters=b"".join(parts), returns=POLICY_SESSIONS
        )
        with self.transient(self.ask(command, _read_session)) as session:
            yield session

    def policy_secret(self, session: int, hierarchy: int) -> None:
        """Prove to a session that the (empty) password of a hierarchy is known."""
        parts = (
            fields.to_tpm2b(b""),  # nonceTPM: not bound to it
            fields.to_tpm2b(b""),  # cpHashA
            fields.to_tpm2b(b""),  # policyRef
            bytes(4),  # expiration: never
        )
        self.ask(
            Command(CommandCode.POLICY_SECRET, (hierarchy, session), (PASSWORD,), b"".join(parts)),
            _read_policy_ticket,
        )

    @contextmanager
    def ek_session(self, ek: TpmtPublic) -> Iterator[int | None]:
        """What authorizes one use of an EK: a satisfied policy session, or None for the empty password."""
        if ek.attributes & _USER_WITH_AUTH:
            yield None
            return
        with self.policy_session(ek.name_alg) as session:
            self.policy_secret(session, ENDORSEMENT)
            yield session


def authorization(session: int | None) -> int:
    """The session handle that stands in a command for a session, or for the empty password."""
    return PASSWORD if session is None else session


def _read_session(answer: Answer) -> int:
    bounded(answer.parameters, "nonceTPM", MAX_DIGEST, _NONCE_SIZE)
    return answer.handle


def _read_policy_ticket(answer: Answer) -> None:
    bounded(answer.parameters, "timeout", 8)
    read_ticket(answer.parameters, _AUTH_TICKET)
