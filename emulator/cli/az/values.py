"""The values of options: JSON or a file of it, pairs, flags, numbers."""

from __future__ import annotations

import base64
import json
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from emulator.cli.parser import encodable, named
from emulator.hub.core import limits
from emulator.hub.core.times import parse_duration
from emulator.net import files
from emulator.setting import parse_seconds

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_DEEPEST = 100  # levels of JSON; a twin has 10
_SHOWN = 60  # how much of a value an error repeats, in characters


class NestingError(ValueError):
    """JSON is nested too deep."""

    def __init__(self) -> None:
        super().__init__(f"it is nested deeper than {_DEEPEST} levels")


def json_value(text: str) -> Any:
    """Parse JSON, or the JSON in a file: its path, with or without `@` before it.

    Raises:
        ArgumentTypeError
    """
    file = Path(text.removeprefix("@"))
    is_file = _is_file(file)
    try:
        return parse_json(_read(file).decode("utf-8-sig") if is_file else text)
    except OSError as error:
        raise ArgumentTypeError(f"Can't read {file}: {error.strerror or error}") from None
    except ValueError as error:
        if is_file:
            raise ArgumentTypeError(f"No JSON in {file}: {error}") from None
        if isinstance(error, NestingError):
            raise ArgumentTypeError(f"Invalid JSON: {error}") from None
        raise ArgumentTypeError(
            f"Neither JSON nor a file: {_shown(text)}. In a shell, quote it: '{{\"a\": 1}}'"
        ) from None


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that can be written again, which takes more of Python's stack than to parse it.

    Raises:
        ValueError: it is not JSON.
        NestingError
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise NestingError from None
    level = [document]
    for _ in range(_DEEPEST):
        level = [child for each in level for child in _children(each)]
        if not level:
            return document
    raise NestingError


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object, or a file of one.

    Raises:
        ArgumentTypeError
    """
    value = json_value(text)
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"Not a JSON object: {_shown(json.dumps(value))}")
    return value


def text_or_file(text: str) -> str:
    """Return a text, or the text in a file.

    Raises:
        ArgumentTypeError
    """
    file = Path(text)
    try:
        return _read(file).decode().strip() if _is_file(file) else text
    except OSError as error:
        raise ArgumentTypeError(f"Can't read {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise ArgumentTypeError(f"Can't read {file}: {error}") from None


def content_of(text: str) -> bytes:
    """Return the content of a file.

    Raises:
        ArgumentTypeError
    """
    try:
        return _read(Path(text))
    except OSError as error:
        raise ArgumentTypeError(f"Can't read {text}: {error.strerror or error}") from None


def key(text: str) -> str:
    """Return a key; no error repeats it.

    Raises:
        ArgumentTypeError
    """
    try:
        base64.b64decode(named(text), validate=True)
    except ValueError:
        raise ArgumentTypeError("Invalid key: it is not base64") from None
    return text


def etag(text: str) -> str:
    """Return an etag: it is sent in a header.

    Raises:
        ArgumentTypeError
    """
    if not (text.isascii() and named(text).isprintable()):
        raise ArgumentTypeError(f"Invalid etag {_shown(text)}: use that of the document")
    return text


def pair(text: str) -> tuple[str, str]:
    """Parse `name=value`.

    Raises:
        ArgumentTypeError
    """
    name, equals, value = encodable(text).partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"Not a pair: {_shown(text)}. Use name=value")
    return name, value


def pairs(text: str) -> dict[str, str]:
    """Parse `name=value;name=value`.

    Raises:
        ArgumentTypeError
    """
    return dict(pair(each) for each in text.split(";") if each)


def flag(text: str) -> bool:
    """Parse true or false.

    Raises:
        ArgumentTypeError
    """
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ArgumentTypeError(f"Invalid value {_shown(text)}: use true or false")
    return text.lower() in _TRUE


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range."""
    allowed = f"from {least} up" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise ArgumentTypeError(f"Invalid number {_shown(text)}: use {allowed}")
        return number

    return parse


def top(text: str) -> int | None:
    """Parse how many rows are wanted; -1 is all, as None.

    Raises:
        ArgumentTypeError
    """
    return None if text == "-1" else whole(1)(text)


def seconds(text: str) -> float:
    """Parse a number of seconds, from 0 up.

    Raises:
        ArgumentTypeError
    """
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(f"Invalid number {_shown(text)}: use seconds, from 0 up")
    return number


def duration(text: str, *, zero: bool = False) -> float:
    """Parse a time: seconds, a number with a unit, or an ISO 8601 duration; return seconds.

    Args:
        text: the text.
        zero: whether it can be 0.

    Raises:
        ArgumentTypeError
    """
    number = number_or_text(text)
    if isinstance(number, str):
        span = parse_duration(text)
        try:
            number = parse_seconds(text) if span is None else span.total_seconds()
        except ValueError:
            number = -1
    if not 0 <= number < float("inf") or not (number or zero):
        least = "from 0 up" if zero else "above 0"
        raise ArgumentTypeError(
            f"Invalid time {_shown(text)}: use seconds {least}, or a number and a unit, such as "
            "90s, 12h or 7d"
        )
    return number


def number_or_text(text: str) -> float | str:
    """Return a number, or else the text, of which an error is raised elsewhere."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return encodable(text)


def _read(path: Path) -> bytes:
    """Return the content of a file, which goes into the body of a request."""
    return files.read_named(path, limits.HTTP_BODY_BYTES, any_kind=True)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
