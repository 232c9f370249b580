"""Many commits side by side."""

from collections.abc import Sequence
from typing import overload

from service.core.columns import Rows
from service.core.ports import Commit
from service.core.session import SessionKey


class Writes(Sequence[Commit]):
    """Commits of records of one length, as a sequence and as columns: row `i` of each is about `keys[i]`.

    `versions` are (batch, 24) bytes, those at `record.VERSION_SLICE` of the records that are to be replaced, and
    `records` the new ones.
    """

    def __init__(self, keys: Sequence[SessionKey], versions: Rows, records: Rows) -> None:
        self.keys = keys
        self.versions = versions
        self.records = records

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, i: int) -> Commit: ...
    @overload
    def __getitem__(self, i: slice) -> "Writes": ...
    def __getitem__(self, i: int | slice) -> "Commit | Writes":
        if isinstance(i, slice):
            return Writes(self.keys[i], self.versions[i], self.records[i])
        return Commit(self.keys[i], self.versions[i].tobytes(), self.records[i].tobytes())

    def pick(self, rows: Sequence[int]) -> "Writes":
        return Writes([self.keys[i] for i in rows], self.versions[rows], self.records[rows])
