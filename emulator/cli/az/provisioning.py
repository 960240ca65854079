"""The Device Provisioning Service of a command, and the options of its commands."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from emulator.cli import hubs
from emulator.cli.az import options as o
from emulator.cli.az import values
from emulator.cli.az.session import Hub
from emulator.client import Client, Response
from emulator.connection_strings import PROVISIONING
from emulator.errors import ClientError

# That of the extension.
API_VERSION = "2021-10-01"
_ID_SCOPE = f"{PROVISIONING}IDSCOPE"


class Provisioning(Hub):
    """The service that the options of a command name; nothing is sent before it is used."""

    FINDING = hubs.FINDING_PROVISIONING
    NAMES: tuple[str, ...] = ("--host", "--dps-name", "-n")

    @functools.cached_property
    def client(self) -> Client:
        """The client of its owner.

        Raises:
            ClientError: no service is named.
        """
        return hubs.connect_provisioning(self._options)

    @property
    def id_scope(self) -> str | None:
        """The id scope of the service, where it is known."""
        options = self._options
        if options.login:
            return None
        variables = _ID_SCOPE, hubs.PROVISIONING_VARIABLE
        if not (options.host or options.data_dir) and any(map(os.environ.get, variables)):
            return os.environ.get(_ID_SCOPE)  # that of a running hub belongs to another service
        try:
            found: str | None = hubs.running(options)["environment"].get(_ID_SCOPE)
        except ClientError:  # no hub runs: the client says so
            return None
        return found

    def get(self, *parts: str) -> Any:
        """See `Hub.get`."""
        return self.send("GET", *parts).json()

    def send(
        self,
        verb: str,
        *parts: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Response:
        """See `Hub.send`."""
        parameters = {"api-version": API_VERSION, **(parameters or {})}
        return super().send(verb, *parts, body=body, headers=headers, parameters=parameters)


# Names and short forms are those of azure-iot-cli-extension (source: _params.py, dps/params.py).
_FILE: dict[str, Any] = {"metavar": "FILE", "type": values.content_of}
_JSON: dict[str, Any] = {"metavar": "JSON", "type": values.json_object}

ENROLLMENT = o.option("--enrollment-id", "--eid", required=True, help="the registration id")
GROUP = o.option(
    *("--enrollment-id", "--eid", "--group-id", "--gid"), required=True, help="the group"
)
REGISTRATION = o.option("--registration-id", "--rid", required=True, help="the device")
SHOW_KEYS = o.switch("--show-keys", "--keys", help="with its keys")
TOP = o.option("--top", type=values.top, help="how many at most (default: all)")

ATTESTATION = o.option(
    *("--attestation-type", "--at"),
    required=True,
    choices=("symmetricKey", "x509", "tpm"),
    help="how the device proves what it is",
)
ENDORSEMENT_KEY = o.option("--endorsement-key", "--ek", help="the endorsement key of a TPM")
CERTIFICATES = (
    o.option("--certificate-path", "--cp", help="a certificate, PEM or DER", **_FILE),
    o.option("--secondary-certificate-path", "--scp", help="a second one", **_FILE),
)
REMOVE_CERTIFICATES = (
    o.switch("--remove-certificate", "--rc", help="remove the first certificate"),
    o.switch("--remove-secondary-certificate", "--rsc", help="remove the second one"),
)
KEYS = (
    o.option("--primary-key", "--pk", help="the primary key, base64 (default: a new one)"),
    o.option("--secondary-key", "--sk", help="the secondary key, base64"),
)
CA_NAMES = (
    o.option("--root-ca-name", "--ca-name", "--cn", help="the name of a registered CA"),
    o.option("--secondary-root-ca-name", "--secondary-ca-name", "--scn", help="a second one"),
)
DEVICE = o.option("--device-id", "-d", help="its id in the hub (default: the registration id)")
INFORMATION = o.option("--device-information", "--info", help="notes: JSON or a file", **_JSON)
SHARED = (
    o.option("--initial-twin-tags", "--tags", help="its first tags: JSON or a file", **_JSON),
    o.option(
        *("--initial-twin-properties", "--props"), help="its first desired properties", **_JSON
    ),
    o.option(
        *("--provisioning-status", "--ps"),
        choices=("enabled", "disabled"),
        help="whether it can register",
    ),
    o.option(
        *("--reprovision-policy", "--rp"),
        choices=("reprovisionandmigratedata", "reprovisionandresetdata", "never"),
        help="what a new registration does (default: the first)",
    ),
    o.option(
        *("--allocation-policy", "--ap"),
        choices=("hashed", "geoLatency", "static", "custom"),
        help="how its hub is chosen",
    ),
    o.option(
        *("--iot-hubs", "--ih"),
        metavar="HOST",
        nargs="+",
        action="extend",
        help="the hubs to choose from",
    ),
    o.option("--webhook-url", "--wh", metavar="URL", help="what chooses the hub, if custom"),
    o.option("--api-version", "--av", help="the api-version for the webhook"),
    o.EDGE,
)
