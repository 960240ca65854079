"""The TLS of one connection: it logs why a handshake failed, where a user can mend that."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from emulator.hub.core.printable import printable
from emulator.hub.core.refusals import refusals
from emulator.net.first_bytes import protocol_of

# The alerts of a client that refuses the server's certificate (RFC 8446, section 6.2), as OpenSSL
# names them. A client with another name for the host sends the second; Java sends the third.
_UNKNOWN_CA = "ALERT_UNKNOWN_CA"
_BAD_CERTIFICATE = ("ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN")

# How OpenSSL calls what is not the first record of TLS: it knows some methods of HTTP.
_NOT_TLS = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER")


class TlsConnection(ssl.SSLObject):
    """The TLS of one connection; it logs why a handshake fails, where a user can mend that."""

    bundle: Path
    without_tls: Mapping[str, str]
    header = b""
    """The header of the last record of the client, up to its certificate."""
    _unfinished = True

    def do_handshake(self) -> None:
        """See `ssl.SSLObject`."""
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            self._unfinished = False
            alert = error.reason or ""
            if alert.endswith(_UNKNOWN_CA):
                self._log("A client does not trust the hub's CA.")
            elif alert.endswith(_BAD_CERTIFICATE):
                self._log(
                    "A client refused the hub's certificate. It uses a host name that is not in "
                    "the certificate (see --host), or does not trust the hub's CA."
                )
            elif alert in _NOT_TLS:
                self._log_other()
            raise
        self._unfinished = False

    def __del__(self) -> None:
        # Node sends no alert: it leaves. The event loop reports that to no protocol.
        if self._unfinished and self.cipher() and not sys.is_finalizing():
            self._log(
                "A client left the TLS handshake, as Node does if it does not trust the hub's CA."
            )

    def _log_other(self) -> None:
        name = protocol_of(self.header)
        if name in self.without_tls:
            refusals.info(
                "%s without TLS arrived at a port for TLS: %s",
                printable(name),
                printable(self.without_tls[name]),
            )
        else:
            refusals.info("Bytes that are not TLS arrived at a port for TLS: %r ...", self.header)

    def _log(self, text: str) -> None:
        refusals.info(
            "%s Set in its console: SSL_CERT_FILE and REQUESTS_CA_BUNDLE for Python, "
            "NODE_EXTRA_CA_CERTS for Node, --cacert for curl, each with %s; azure-eventhub reads "
            "no variable: connection_verify=%r",
            printable(text),
            printable(self.bundle),
            str(self.bundle),
        )


def connection_class(bundle: Path, amqp_port: int | None) -> type[TlsConnection]:
    """Return the class of a server's connections.

    Args:
        bundle: the file of certificates that clients are told to trust.
        amqp_port: the port for AMQP without TLS; None without one.
    """
    plain = f", or port {amqp_port}" if amqp_port else ""
    without_tls = {
        "HTTP": "use https, or wss for a WebSocket",
        "MQTT": "use TLS",
        "AMQP": f"use TLS{plain}",
    }
    return type("Connection", (TlsConnection,), {"bundle": bundle, "without_tls": without_tls})
