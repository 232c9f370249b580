"""What a batch is to run: the records of its sessions, and a plan for each of its turns."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import cast

from service.abreast import Abreast, Sheet, sheets
from service.core import record as records
from service.core.cache import RecordCache
from service.core.columns import Layout
from service.core.errors import Conflict, ConveyorError, SessionNotFound
from service.core.plan import plan, straight
from service.core.ports import Clock, Models, Observer, StateStore
from service.core.session import Result, SessionKey
from service.core.trust import Trust
from service.pending import Pending, Run, StepTurn, refuse

Groups = defaultdict[tuple[Layout, int], list[Run]]
"""Turns that are run as one: of one model and of one length."""

_COMPARED = 16
"""So many sessions of a read of timesteps side by side tell whether what is remembered would have done."""


class Planner:
    """Reads the records that are not in `cache`, decides, and answers the steps that need no run.

    While `trust` does not hold, all are read. What is remembered is compared with some of them.
    """

    def __init__(
        self, store: StateStore, models: Models, observer: Observer, cache: RecordCache, trust: Trust, clock: Clock
    ) -> None:
        self._store = store
        self._models = models
        self._observer = observer
        self._cache = cache
        self._trust = trust
        self._clock = clock
        self._layouts: dict[bytes, Layout] = {}

    def plan(self, turns: Sequence[StepTurn]) -> tuple[Groups, list[StepTurn]]:
        """Return what to run of these turns, and those of them that have to be read first.

        On a remembered record only turns of steps that come next are planned, since a commit will tell whether it was
        out of date.
        """
        groups: Groups = defaultdict(list)
        if not self._trust.holds:
            self._observer.cache(0, len(turns))
            return groups, list(turns)
        unread: list[StepTurn] = []
        for turn in turns:
            if (held := self._cache.get(turn.key)) is not None:
                record, layout = held
                straightly = straight(records.step_of(record), layout, [step.timestep for step in turn.steps])
                if straightly is not None:
                    groups[layout, straightly.length].append(Run(turn, layout, record, straightly))
                    continue
            unread.append(turn)
        self._observer.cache(len(turns) - len(unread), len(unread))
        return groups, unread

    def plan_abreast(self, abreast: Abreast) -> tuple[list[Sheet], Abreast | None]:
        """Return what to run of these, and those that have to be read first, if any. See `plan`."""
        if not self._trust.holds:
            self._observer.cache(0, len(abreast))
            return [], abreast
        planned, others = sheets(abreast, self._cache)
        self._observer.cache(len(abreast) - len(others), len(others))
        return planned, abreast.pick(others) if others else None

    async def read(self, turns: Sequence[StepTurn]) -> Groups:
        """Read turns' records and return what to run. The steps that need no run are answered, or refused."""
        groups: Groups = defaultdict(list)
        keys = [turn.key for turn in turns]
        loaded = await self._load(keys)
        if not self._trust.holds:
            self._compare(keys, loaded)  # all of them, as it is their touch, too
        for turn, record in zip(turns, loaded, strict=True):
            self._plan_read(turn, record, groups)
        return groups

    async def read_abreast(self, abreast: Abreast) -> tuple[list[Sheet], Groups]:
        """Do what `read` does for timesteps side by side; those that leave the columns are in the groups."""
        groups: Groups = defaultdict(list)
        loaded = await self._load(abreast.keys)
        if not self._trust.holds:
            apart = slice(None, None, -(-len(loaded) // _COMPARED))
            self._compare(abreast.keys[apart], loaded[apart])
        self._put(abreast.keys, loaded)
        planned, others = sheets(abreast, self._cache)
        for turn, i in zip(abreast.turns(others), others, strict=True):
            self._plan_read(turn, loaded[i], groups)
        return planned, groups

    async def _load(self, keys: Sequence[SessionKey]) -> Sequence[bytes | ConveyorError | None]:
        started = self._clock()
        try:
            loaded = await self._store.load(keys)
        except ConveyorError as error:
            return [error] * len(keys)
        self._observer.stage("read", self._clock() - started)
        return loaded

    def _compare(self, keys: Sequence[SessionKey], loaded: Sequence[bytes | ConveyorError | None]) -> None:
        """Find out which remembered records are out of date by those that were just read."""
        outdated = compared = 0
        for key, record in zip(keys, loaded, strict=True):
            if isinstance(record, bytes) and (held := self._cache.get(key)) is not None:
                compared += 1
                outdated += held[0][records.VERSION_SLICE] != record[records.VERSION_SLICE]
        self._trust.weigh(outdated, compared)

    def _put(self, keys: Sequence[SessionKey], loaded: Sequence[bytes | ConveyorError | None]) -> None:
        """Put records that were read into the cache, those of known models that have had a timestep."""
        rows_of: defaultdict[Layout, list[int]] = defaultdict(list)
        for i, record in enumerate(loaded):
            if isinstance(record, bytes):
                layout = self._layouts.get(records.kind_of(record))
                if layout is not None and len(record) == layout.size:
                    rows_of[layout].append(i)
        for layout, rows in rows_of.items():
            found = layout.rows([cast("bytes", loaded[i]) for i in rows])
            if layout.are_sound(found):  # otherwise `_plan_read` finds out whose is not
                self._cache.put_rows([keys[i] for i in rows], layout, found)

    def _plan_read(self, turn: StepTurn, record: bytes | ConveyorError | None, groups: Groups) -> None:
        try:
            if isinstance(record, ConveyorError):
                raise record
            if record is None:
                raise not_found(turn.key)
            layout = self._layout(record)
            records.decode(record)  # raises, where it holds what is no number
            self._cache.put(turn.key, record, layout)
            self._plan_turn(turn, record, layout, groups)
        except ConveyorError as error:
            self._cache.drop(turn.key)
            self._refuse(turn.steps, error)

    def remember(self, key: SessionKey, record: bytes) -> None:
        """Keep a record that a commit brought back, unless it has to be looked at by `read` first."""
        layout = self._layouts.get(records.kind_of(record))
        if layout is not None and layout.fits(record):
            self._cache.put(key, record, layout)
        else:
            self._cache.drop(key)

    def _layout(self, record: bytes) -> Layout:
        """Return a record's layout. Raises `InvalidRecord`, and `ModelMismatch` where its model is not served."""
        layout = self._layouts.get(records.kind_of(record))
        if layout is None or not layout.fits(record):
            session = records.decode(record)
            layout = Layout(session.model, self._models.holding(session.model).spec)
            layout.require(session)
            self._layouts[records.kind_of(record)] = layout
        return layout

    def _plan_turn(self, turn: StepTurn, record: bytes, layout: Layout, groups: Groups) -> None:
        """Plan a turn on a record that was just read, and answer the steps of it that are not run.

        A conflict behind steps that are run is told when these are in the store: until then the session is not there.
        """
        steps = [step.timestep for step in turn.steps]
        planned = straight(records.step_of(record), layout, steps)
        if planned is None:
            planned = plan(records.decode(record), layout.spec, steps)
            for step, outcome in zip(turn.steps, planned.outcomes, strict=True):
                if isinstance(outcome, Result):
                    self._observer.replayed()
                    step.answer(step.rendered(outcome))
                elif isinstance(outcome, ConveyorError) and not (planned.length and isinstance(outcome, Conflict)):
                    self._refuse([step], outcome)
        if planned.length:
            groups[layout, planned.length].append(Run(turn, layout, record, planned))

    def _refuse(self, steps: Iterable[Pending], error: ConveyorError) -> None:
        refuse(steps, error, self._observer)


def not_found(key: SessionKey) -> SessionNotFound:
    return SessionNotFound(f"there is no session {key.session_id!r}; it was never opened, was deleted or has expired")
