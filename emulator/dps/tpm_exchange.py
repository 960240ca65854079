"""The SASL mechanism TPM: a device proves that it has the TPM of its enrollment.

The device sends its endorsement key, then its storage root key. It gets a key that only its TPM can
unseal, in segments, and sends a SAS token that it has signed with that. The bytes are those of the
SDKs for C#, Java and Node.
"""

from __future__ import annotations

from emulator.amqp.sasl import Answer
from emulator.dps.access import Proof
from emulator.dps.errors import EnrollmentNotFound, TpmChallenge, Unauthorized
from emulator.dps.names import ID_SCOPE
from emulator.dps.service import ProvisioningService
from emulator.dps.tpm_keys import Tpm
from emulator.hub.core.errors import HubError
from emulator.hub.core.printable import printable

# Each message begins with a byte: 0, or that of a segment with its number in the last two bits.
_PLAIN = b"\0"
_SEGMENT, _LAST_SEGMENT = 0x80, 0xC0

# The SDK for C cuts its own messages so. The SDK for Java takes a key in exactly two segments.
_SEGMENT_BYTES = 470


class TpmExchange:
    """One exchange.

    Attributes:
        proof: the credentials of the device, once they are proved.
    """

    def __init__(self, service: ProvisioningService) -> None:
        self.proof: Proof | None = None
        self._service = service
        self._id = ""
        self._endorsement = b""
        self._tpm: Tpm | None = None
        self._segments: list[bytes] = []

    def begin(self, response: bytes) -> Answer:
        """Take the id scope, the registration id and the endorsement key."""
        parts = response.split(_PLAIN, 3)
        if len(parts) != 4 or parts[0]:
            return self._refuse("malformed")
        try:
            scope, self._id = parts[1].decode(), parts[2].decode()
        except UnicodeDecodeError:
            return self._refuse("malformed")
        if scope.lower() != ID_SCOPE.lower():
            return self._refuse(f"the id scope is {scope!r}, not {ID_SCOPE}")
        self._endorsement = parts[3]
        return _PLAIN

    def respond(self, response: bytes) -> Answer:
        """Take the storage root key, the receipt of a segment, or the token."""
        if response[:1] != _PLAIN:
            return self._refuse("malformed")
        content = response[1:]
        if self._tpm is None:
            self._tpm = Tpm(self._endorsement, content)
            return self._challenge(self._tpm)
        if self._segments:
            return self._segments.pop(0)
        return self._check(Proof(content.decode("utf-8", "replace"), tpm=self._tpm))

    def _challenge(self, tpm: Tpm) -> Answer:
        try:
            self._service.access.admit(self._id, Proof(None, tpm=tpm))
        except TpmChallenge as challenge:
            sealed = challenge.sealed
        except HubError as error:
            return self._refuse(error.__cause__ or error, error)
        else:  # it has no token
            return self._refuse("no SAS token", Unauthorized())
        cut = [sealed[i : i + _SEGMENT_BYTES] for i in range(0, len(sealed), _SEGMENT_BYTES)]
        for number, segment in enumerate(cut):
            control = _LAST_SEGMENT if segment is cut[-1] else _SEGMENT
            self._segments.append(bytes([control | number]) + segment)
        return self._segments.pop(0)

    def _check(self, proof: Proof) -> Answer:
        try:
            self._service.access.admit(self._id, proof)
        except EnrollmentNotFound:
            pass  # it has its TPM: its registration fails
        except HubError as error:
            return self._refuse(error.__cause__ or error, error)
        self.proof = proof
        return True

    def _refuse(self, reason: object, error: HubError | None = None) -> bool:
        refusals = self._service.registrations.refusals
        refusals.info("Refused the TPM of %r: %s", self._id, printable(reason), error=error)
        return False
