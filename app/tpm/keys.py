"""Keys: made, loaded, saved; and what they are asked to do for attestation.

Source: TCG TPM 2.0 Library, Part 3, TPM2_CreatePrimary, TPM2_ReadPublic, TPM2_ContextSave,
TPM2_ContextLoad, TPM2_ActivateCredential, TPM2_Import, TPM2_Load, TPM2_Certify, TPM2_Quote.
"""

from dataclasses import dataclass

from app.tpm.command import MAX_DIGEST, Answer, Command, CommandCode, bounded, read_ticket
from app.tpm.dispatch import Dispatcher
from app.tpm.handles import PASSWORD, TRANSIENT
from app.tpm.sessions import authorization
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields
from app.wire.tpm.attest import Attest, CertifyInfo, QuoteInfo
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import parse_signature

_CREATION_TICKET = 0x8021  # TPM_ST_CREATION
_MAX_CREATION_DATA = 512
_MAX_NAME = 2 + MAX_DIGEST
_MAX_ATTEST = 512  # a quote of three banks by a SHA-512 key has 250
_MAX_PRIVATE = 2048
_MAX_CONTEXT = 4000  # what fits an answer
_CONTEXT = "TPMS_CONTEXT"


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A primary key in the TPM, to be flushed by whoever made it."""

    handle: int
    public: bytes  # TPMT_PUBLIC, which parses
    name: bytes  # equal to what the public area says


class KeyCommands(Dispatcher):
    """Commands about keys. Keys and hierarchies have empty passwords."""

    def create_primary(self, hierarchy: int, template: bytes) -> CreatedKey:
        """Make the key that a template (TPMT_PUBLIC) gives under the seed of a hierarchy.

        The command is byte for byte the one that COCONUT-SVSM makes its EK with. Takes as long as
        the search for an RSA key's primes.
        """
        parts = (
            fields.to_tpm2b(fields.to_tpm2b(b"") + fields.to_tpm2b(b"")),  # inSensitive: no password, no data
            fields.to_tpm2b(template),
            fields.to_tpm2b(b""),  # outsideInfo
            bytes(4),  # creationPCR: none
        )
        command = Command(
            CommandCode.CREATE_PRIMARY, (hierarchy,), (PASSWORD,), b"".join(parts), returns=TRANSIENT
        )
        return self.ask(command, _read_created)

    def read_public(self, handle: int) -> TpmtPublic:
        """The public area of a loaded or persistent key."""
        return self.ask(Command(CommandCode.READ_PUBLIC, (handle,)), _read_public)

    def context_save(self, handle: int) -> bytes:
        """A loaded object as a TPMS_CONTEXT, encrypted by the TPM; it stays loaded. At most 4000 bytes."""
        return self.ask(Command(CommandCode.CONTEXT_SAVE, (handle,)), _read_saved)

    def context_load(self, context: bytes) -> int:
        """The handle of a saved object that is loaded again, to be flushed by whoever loaded it.

        Raises:
            TpmRefusedError: saved by another TPM, or before its last reset.
            WireError: not a TPMS_CONTEXT.
        """
        cursor = Cursor(_CONTEXT, context)
        _take_context(cursor)
        cursor.end()
        command = Command(CommandCode.CONTEXT_LOAD, parameters=context, returns=TRANSIENT)
        return self.ask(command, lambda answer: answer.handle)

    def activate_credential(self, key: int, ek: int, session: int | None, blob: CredentialBlob) -> bytes:
        """The secret of a challenge (1 to 64 bytes) that was made for `key` beside `ek`.

        Args:
            key: an attestation key with an empty password.
            ek: a loaded EK.
            session: what `ek_session` gave for it.
            blob: the challenge.

        Raises:
            TpmRefusedError: INTEGRITY for a challenge to another key or EK. For an RSA secret that
                does not decrypt, libtpms says FAILURE, and goes on working.
        """
        command = Command(
            CommandCode.ACTIVATE_CREDENTIAL,
            (key, ek),
            (PASSWORD, authorization(session)),
            b"".join(blob.to_tpm2bs()),
        )
        return self.ask(command, lambda answer: bounded(answer.parameters, "certInfo", MAX_DIGEST, 1))

    def import_object(self, parent: int, session: int | None, blob: ImportBlob) -> bytes:
        """The imported key as a TPM2B_PRIVATE's content, encrypted for `parent`; not loaded yet.

        Raises:
            TpmRefusedError: INTEGRITY for a key that was wrapped for another parent.
        """
        public_area, duplicate, seed = blob.to_tpm2bs()
        parts = (
            fields.to_tpm2b(b""),  # encryptionKey: no inner wrapper
            public_area,
            duplicate,
            seed,
            fields.p16(alg.NULL),  # symmetricAlg
        )
        command = Command(CommandCode.IMPORT, (parent,), (authorization(session),), b"".join(parts))
        return self.ask(command, lambda answer: bounded(answer.parameters, "outPrivate", _MAX_PRIVATE, 1))

    def load(self, parent: int, session: int | None, private: bytes, public: bytes, name: bytes) -> int:
        """The handle of a key under its parent, to be flushed by whoever loaded it.

        Args:
            parent: a loaded storage key.
            session: what `ek_session` gave for it. One use of it only: import and load take one each.
            private: as `import_object` returned it.
            public: the TPMT_PUBLIC.
            name: the Name that the loaded object must have.
        """

        def read(answer: Answer) -> int:
            _read_name(answer.parameters, name)
            return answer.handle

        parameters = fields.to_tpm2b(private) + fields.to_tpm2b(public)
        command = Command(
            CommandCode.LOAD, (parent,), (authorization(session),), parameters, returns=TRANSIENT
        )
        return self.ask(command, read)

    def certify(self, key: int, signer: int, qualifying: bytes = b"") -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE in which `signer` says that `key` is in this TPM.

        Both have empty passwords; the scheme is the signer's own.
        """
        parameters = fields.to_tpm2b(qualifying) + fields.p16(alg.NULL)
        command = Command(CommandCode.CERTIFY, (key, signer), (PASSWORD, PASSWORD), parameters)
        return self.ask(command, lambda answer: _read_statement(answer.parameters, CertifyInfo, qualifying))

    def quote(self, key: int, qualifying: bytes, selection: PcrSelection) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE over the selected registers as they are now.

        Args:
            key: a signing key with an empty password; its own scheme is used.
            qualifying: at most 48 bytes for COCONUT-SVSM's TPM; normally 32.
            selection: the registers, bank by bank.
        """
        parameters = fields.to_tpm2b(qualifying) + fields.p16(alg.NULL) + selection.encode()
        command = Command(CommandCode.QUOTE, (key,), (PASSWORD,), parameters)
        return self.ask(command, lambda answer: _read_statement(answer.parameters, QuoteInfo, qualifying))


def _read_created(answer: Answer) -> CreatedKey:
    cursor = answer.parameters
    public = TpmtPublic.read_tpm2b(cursor)
    bounded(cursor, "creationData", _MAX_CREATION_DATA)
    bounded(cursor, "creationHash", MAX_DIGEST)
    read_ticket(cursor, _CREATION_TICKET)
    _read_name(cursor, public.name)
    return CreatedKey(answer.handle, public.encode(), public.name)


def _read_public(answer: Answer) -> TpmtPublic:
    cursor = answer.parameters
    public = TpmtPublic.read_tpm2b(cursor)
    _read_name(cursor, public.name)
    bounded(cursor, "qualifiedName", _MAX_NAME)
    return public


def _read_name(cursor: Cursor, want: bytes) -> None:
    name = fields.tpm2b(cursor, "name")
    if name != want:
        raise cursor.fail("the Name is not that of the public area", back=len(name))


def _read_statement(
    cursor: Cursor, kind: type[QuoteInfo] | type[CertifyInfo], qualifying: bytes
) -> tuple[bytes, bytes]:
    attest = bounded(cursor, "attest", _MAX_ATTEST)
    statement = Attest.parse(attest)
    if not isinstance(statement.attested, kind) or statement.extra_data != qualifying:
        raise cursor.fail("the statement answers another question", back=len(attest))
    signature = cursor.take(cursor.remaining, "signature")
    parse_signature(signature)
    return attest, signature


def _read_saved(answer: Answer) -> bytes:
    return _take_context(answer.parameters)


def _take_context(cursor: Cursor) -> bytes:
    """Read a TPMS_CONTEXT: sequence u64, savedHandle u32, hierarchy u32, and a sized blob."""
    head = cursor.take(16, "sequence, savedHandle and hierarchy")
    blob = bounded(cursor, "contextBlob", _MAX_CONTEXT, 1)
    return head + fields.to_tpm2b(blob)
