"""The search for what stands at a path: an HTTP route, or a node of AMQP.

Fixed parts match in any letter case, and a slash at the end is optional: clients write both
`deviceBound` and `devicebound`, and the SDK for Node lists devices at `/devices/`. aiohttp's own
router would try one regular expression after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from msgspec import Struct, field

_T = TypeVar("_T")


class Found(Struct, Generic[_T], frozen=True):
    """The targets at a path by their verbs, and the values of the names in the path."""

    verbs: Mapping[str, _T]
    names: Mapping[str, str]


class _Node(Struct, Generic[_T]):
    """A common start of paths."""

    verbs: dict[str, _T] = field(default_factory=dict)
    fixed: dict[str, _Node[_T]] = field(default_factory=dict)
    named: dict[str, _Node[_T]] = field(default_factory=dict)


class Router(Generic[_T]):
    """Paths such as `/devices/{device_id}`, each with targets for some verbs: HTTP methods."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()

    def add(self, verb: str, path: str, target: _T) -> None:
        """Add the target of a verb and a path."""
        node = self._root
        for part in filter(None, path.split("/")):
            if part.startswith("{"):
                node = node.named.setdefault(part[1:-1], _Node())
            else:
                node = node.fixed.setdefault(part.lower(), _Node())
        node.verbs[verb] = target

    def find(self, parts: Sequence[str]) -> Iterator[Found[_T]]:
        """Return the targets at a path, which is given as decoded parts.

        A fixed part is before a name: `/devices/query` is first the route of queries, and then the
        device of this id.
        """
        end = len(parts) - 1 if parts and not parts[-1] else len(parts)
        return self._find(self._root, parts[:end], {})

    def _find(
        self, node: _Node[_T], parts: Sequence[str], names: dict[str, str]
    ) -> Iterator[Found[_T]]:
        if not parts:
            if node.verbs:
                yield Found(node.verbs, names)
            return
        part, rest = parts[0], parts[1:]
        if part.lower() in node.fixed:
            yield from self._find(node.fixed[part.lower()], rest, names)
        if part:
            for name, below in node.named.items():
                yield from self._find(below, rest, {**names, name: part})
