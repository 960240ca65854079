"""Which requests of a browser come from the page itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from emulator.http.requests import Request
from emulator.hub.core.errors import GenericForbidden

_SHOWN = 100  # characters of a header that an error repeats


def check_host(request: Request, names: Collection[str]) -> None:
    """Check that a browser reaches the hub by one of its names, or by a loopback address.

    A name of an attacker can resolve to this machine: then its page would have the hub's origin
    (DNS rebinding).

    Raises:
        GenericForbidden
    """
    host = _host(request.host)
    if host not in map(str.lower, names) and not _is_loopback(host):
        raise GenericForbidden(
            f"The page is not served for the host '{request.host[:_SHOWN]}'. Use a name of the "
            f"hub, such as {next(iter(names))}"
        )


def check_page(request: Request, *, changes: bool) -> None:
    """Check that the page of this hub has sent a request, and no other page.

    Args:
        request: the request.
        changes: whether it can change something.

    Raises:
        GenericForbidden
    """
    # Browsers send Origin with every request that can change something, and Sec-Fetch-Site with
    # every request to HTTPS (Fetch standard; Fetch Metadata).
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    own = f"https://{request.host}".lower()
    if (changes or origin is not None) and (origin or "").lower() != own:
        shown = "missing" if origin is None else f"'{origin[:_SHOWN]}'"
        raise GenericForbidden(f"The Origin of the request is {shown}. Only {own} can do this")
    if site not in ("same-origin", "none"):
        raise GenericForbidden(f"The request comes from another page. Only {own} can do this")


def _host(text: str) -> str:
    try:
        return (urlsplit(f"//{text}").hostname or "").lower()
    except ValueError:  # brackets without an address
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
