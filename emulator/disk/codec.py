"""Records as bytes: MessagePack, in which numbers keep the text that a client wrote."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from emulator.hub.core.json import WrittenNumber, written
from emulator.hub.core.store import Key

T = TypeVar("T")

_WRITTEN = 1  # the extension type of a number that has its text


def _encode_other(value: object) -> object:
    if isinstance(value, WrittenNumber):
        return msgspec.msgpack.Ext(_WRITTEN, value.text.encode())
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise TypeError(f"{type(value).__name__} can't be stored")


def _decode_extension(code: int, data: memoryview) -> object:
    if code != _WRITTEN:
        raise ValueError(f"extension type {code} is unknown")
    return written(bytes(data).decode())


def _decode_other(kind: type, value: Any) -> object:
    if get_origin(kind) is Counter:
        return Counter(msgspec.convert(value, dict[get_args(kind)[0], int]))  # type: ignore[misc]
    raise TypeError(f"{kind} can't be stored")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_keys = msgspec.json.Decoder(tuple[str | None, ...])
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}

encode = _encoder.encode


def decode(kind: type[T], data: bytes) -> T:
    """Return the record of a kind in some bytes.

    Raises:
        msgspec.DecodeError: the bytes are of another kind.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(
            kind, ext_hook=_decode_extension, dec_hook=_decode_other
        )
    record: T = decoder.decode(data)
    return record


def encode_key(key: Key) -> str:
    """Return a key as JSON text."""
    return msgspec.json.encode(key).decode()


def decode_key(text: str) -> Key:
    """Return the key of `encode_key`."""
    return _keys.decode(text)
