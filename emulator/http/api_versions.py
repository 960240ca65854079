"""The api-versions of a hub: those that existed, and all newer ones."""

from __future__ import annotations

import re
from datetime import date
from urllib.parse import parse_qsl

# The versions that Azure's SDKs for C# and Node have sent over the years (source, with history),
# and 2018-04-01 and 2024-03-31 (azure-iot-cli-extension).
_VERSIONS = frozenset(
    (
        *("2015-08-15-preview", "2016-02-03", "2016-04-25-preview", "2016-04-30"),
        *("2016-09-30-preview", "2016-11-14", "2017-06-30", "2017-07-11", "2017-10-15"),
        *("2017-11-08-preview", "2018-01-16", "2018-03-01-preview", "2018-04-01", "2018-06-30"),
        *("2018-08-30-preview", "2018-10-20-preview", "2019-03-30", "2019-07-01-preview"),
        *("2019-10-01", "2020-03-13", "2020-05-31-preview", "2020-09-30", "2021-04-12"),
        *("2022-03-31-preview", "2024-03-31"),
    )
)
_NEWEST = date(2024, 3, 31)
_FORM = re.compile(r"(\d{4}-\d{2}-\d{2})(-preview)?", re.ASCII)


def is_named(query: str) -> bool:
    """Return whether the query of a URL has a valid `api-version`.

    The letter case of the parameter's name does not matter. If the parameter is repeated, each
    value must be valid. What a real hub does in these cases is unknown.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    versions = [value for name, value in pairs if name.lower() == "api-version"]
    return bool(versions) and all(map(_exists, versions))


def _exists(version: str) -> bool:
    match = _FORM.fullmatch(version)
    if match is None:
        return False
    try:
        return version in _VERSIONS or date.fromisoformat(match[1]) > _NEWEST
    except ValueError:  # 2035-02-30
        return False
