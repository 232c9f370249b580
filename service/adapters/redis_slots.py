"""Which node of a Redis Cluster serves which slot."""

from collections.abc import Iterator, Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from service.adapters.redis_address import Address
from service.adapters.redis_records import HASH_TAGS

SLOT_OF_TAG: tuple[int, ...] = tuple(key_slot(b"{%d}" % tag) for tag in range(HASH_TAGS))
"""The slot of the keys with a hash tag."""


class SlotMap:
    """A snapshot of who serves what, corrected by the redirections that come in."""

    def __init__(self) -> None:
        self._owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS

    @classmethod
    def read(cls, reply: Sequence[Sequence[Any]], asked: Address) -> "SlotMap":
        """Read what CLUSTER SLOTS says. A node that does not know its own host is where it was `asked`."""
        slots = cls()
        for first, last, master, *_ in reply:
            host = (master[0] or b"").decode()
            address = Address(asked.host if host in ("", "?") else host, master[1])
            slots._owners[first : last + 1] = [address] * (last + 1 - first)
        return slots

    def owner(self, slot: int) -> Address | None:
        return self._owners[slot]

    def move(self, slot: int, address: Address) -> None:
        self._owners[slot] = address

    def masters(self) -> dict[Address, int]:
        """Return all that serve a slot, each with its first one, in that order."""
        found: dict[Address, int] = {}
        previous = None
        for slot, owner in enumerate(self._owners):
            if owner is not previous:
                previous = owner
                if owner is not None:
                    found.setdefault(owner, slot)
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotMap) and self._owners == other._owners

    @property
    def known(self) -> bool:
        """Whether anybody is known to serve anything."""
        return any(self._owners)

    def tags_of(self, address: Address) -> Iterator[int]:
        """Return the hash tags whose keys a node serves."""
        return (tag for tag, slot in enumerate(SLOT_OF_TAG) if self._owners[slot] == address)

    @property
    def complete(self) -> bool:
        return None not in self._owners


def redirection(message: str, asked: Address) -> tuple[int, Address]:
    """Read ``MOVED 3999 127.0.0.1:6381`` or ASK. Where the host is missing, it is that of the node which was asked."""
    _, slot, address = message.split(" ")[:3]
    host, _, port = address.rpartition(":")
    return int(slot), Address(host or asked.host, int(port))
