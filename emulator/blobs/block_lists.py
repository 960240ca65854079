"""Block lists: the XML documents of Put Block List and Get Block List."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from xml.etree import ElementTree

from emulator.blobs.errors import ServiceError, invalid_parameter
from emulator.hub.core import limits
from emulator.storage.blob_folder import Block, BlockChoice

# Among which blocks the service looks: those that are committed, those that are not. `Latest` takes
# the newest one (Azure Storage docs: Put Block List).
_CHOICES = {"Committed": (True, False), "Uncommitted": (False, True), "Latest": (True, True)}


def parse(document: bytes) -> list[BlockChoice]:
    """Parse the document of a Put Block List.

    Raises:
        ServiceError: it is invalid, or too long.
    """
    try:
        text = document.decode("utf-8-sig")
        # Entities can make a small document large. The SDKs use none.
        if "<!" in text:
            raise ServiceError("InvalidXmlDocument")
        root = ElementTree.fromstring(text)  # noqa: S314 - it has no entities
    except (ElementTree.ParseError, ValueError):
        raise ServiceError("InvalidXmlDocument") from None
    if root.tag != "BlockList" or any(each.tag not in _CHOICES for each in root):
        raise ServiceError("InvalidXmlDocument")
    if len(root) > limits.UPLOAD_BLOCKS:
        raise ServiceError("BlockListTooLong")
    return [_choice(each) for each in root]


def block_id(text: str) -> bytes:
    """Decode the id of a block in a query.

    Raises:
        ServiceError: it is not base64, or too long.
    """
    decoded = _decode(text)
    if decoded is None:
        raise invalid_parameter("blockid", text, "Not a valid base64 string.")
    if len(decoded) not in range(1, limits.UPLOAD_BLOCK_ID_BYTES + 1):
        raise invalid_parameter("blockid", text, "Block ID length must be 1 to 64 bytes.")
    return decoded


def write(committed: Sequence[Block] | None, uncommitted: Sequence[Block] | None) -> bytes:
    """Write the answer to a Get Block List; None leaves a list out."""
    parts = (
        f"<{name}>{''.join(map(_element, blocks))}</{name}>"
        for name, blocks in (("CommittedBlocks", committed), ("UncommittedBlocks", uncommitted))
        if blocks is not None
    )
    body = "".join(parts)
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{body}</BlockList>'.encode()


def _element(block: Block) -> str:
    name = base64.b64encode(block.id).decode()
    return f"<Block><Name>{name}</Name><Size>{block.size}</Size></Block>"


def _choice(element: ElementTree.Element) -> BlockChoice:
    decoded = _decode((element.text or "").strip())
    if not decoded or len(decoded) > limits.UPLOAD_BLOCK_ID_BYTES or len(element):
        raise ServiceError("InvalidBlockList")
    return BlockChoice(decoded, *_CHOICES[element.tag])


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
