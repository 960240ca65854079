"""The parameters in the query of a URL: each is known, and there once."""

from __future__ import annotations

from emulator.http.requests import Request
from emulator.hub.core.digits import whole_number
from emulator.hub.core.errors import ArgumentInvalid


def check_parameters(request: Request, *names: str) -> None:
    """Check that each parameter in the query of the URL is known, and is there once."""
    known = (*names, "api-version")
    for name in request.query:
        if name not in known:
            raise ArgumentInvalid(f"Unknown parameter: {name}. Use one of {', '.join(known)}")
        if len(request.query.getall(name)) > 1:
            raise ArgumentInvalid(f"The parameter {name} is repeated. Use it once")


def number(name: str, text: str) -> int:
    """Parse the whole number of a parameter; `name` stands in the error."""
    found = whole_number(text)
    if found is None:
        raise ArgumentInvalid(f"Invalid {name}: {text}. Use a whole number from 0 up")
    return found
