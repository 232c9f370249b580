"""The lobby: tenants take turns, requests are let in newest first and refused oldest first, sockets in their order."""

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.core.lobby import Lobby
from tests.budget import examples

TENANTS = "abc"


def all_of(lobby: Lobby[str, str, str], may_enter: Callable[[str], bool] = lambda _: True) -> list[str]:
    order = []
    while (found := lobby.next(may_enter)) is not None:
        order.append(found[1])
    return order


def test_requests_are_let_in_newest_first() -> None:
    lobby: Lobby[str, str, str] = Lobby()
    for who in ("first", "second", "third"):
        lobby.ask("a", who)
    assert lobby.oldest() == "first"
    assert all_of(lobby) == ["third", "second"]
    assert lobby.oldest() is None


def test_sockets_are_let_in_in_their_order_and_never_refused() -> None:
    lobby: Lobby[str, str, str] = Lobby()
    for who in ("first", "second", "third"):
        lobby.wait("a", who)
    assert lobby.oldest() is None
    assert all_of(lobby) == ["first", "second", "third"]


def test_who_waits_already_is_there_once() -> None:
    lobby: Lobby[str, str, str] = Lobby()
    for _ in range(2):
        lobby.ask("a", "request")
        lobby.wait("a", "socket")
    assert len(lobby) == 2
    assert all_of(lobby) == ["socket", "request"]
    assert len(lobby) == 0


def test_both_kinds_take_turns() -> None:
    lobby: Lobby[str, str, str] = Lobby()
    for number in range(3):
        lobby.ask("a", f"request {number}")
        lobby.wait("a", f"socket {number}")
    assert all_of(lobby) == ["socket 0", "request 2", "socket 1", "request 1", "socket 2", "request 0"]


def test_tenants_take_turns_and_who_has_no_room_is_passed_over() -> None:
    lobby: Lobby[str, str, str] = Lobby()
    for number in range(3):
        lobby.wait("a", f"a{number}")
    lobby.wait("b", "b0")
    assert all_of(lobby, lambda tenant: tenant == "b") == ["b0"]
    lobby.wait("b", "b1")
    assert all_of(lobby) in (["a0", "b1", "a1", "a2"], ["b1", "a0", "a1", "a2"])
    assert not lobby


class LobbyMachine(RuleBasedStateMachine):
    """Against lists: whoever comes leaves once, in the promised order, whatever happens in between."""

    def __init__(self) -> None:
        super().__init__()
        self.lobby: Lobby[str, int, int] = Lobby()
        self.came = 0
        self.requests: list[tuple[str, int]] = []
        self.sockets: list[tuple[str, int]] = []

    @rule(tenant=st.sampled_from(TENANTS))
    def ask(self, tenant: str) -> None:
        self.came += 1
        self.lobby.ask(tenant, self.came)
        self.requests.append((tenant, self.came))

    @rule(tenant=st.sampled_from(TENANTS))
    def wait(self, tenant: str) -> None:
        self.came += 1
        self.lobby.wait(tenant, self.came)
        self.sockets.append((tenant, self.came))

    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def leave(self, data: st.DataObject, tenant: str) -> None:
        there = [*self.requests, *self.sockets]
        chosen = data.draw(st.sampled_from(there)) if there and data.draw(st.booleans()) else (tenant, 0)
        self.lobby.leave(*chosen)
        for line in (self.requests, self.sockets):
            if chosen in line:
                line.remove(chosen)

    @rule(may_enter=st.sets(st.sampled_from(TENANTS)))
    def next(self, may_enter: set[str]) -> None:
        found = self.lobby.next(may_enter.__contains__)
        newest = [max((each for each in self.requests if each[0] == name), default=None) for name in may_enter]
        oldest = [min((each for each in self.sockets if each[0] == name), default=None) for name in may_enter]
        assert (found is None) == (not any(newest) and not any(oldest))
        if found is not None:
            assert found in (*newest, *oldest)
            (self.requests if found in newest else self.sockets).remove(found)

    @rule()
    def oldest(self) -> None:
        oldest = min(self.requests, key=lambda each: each[1], default=None)
        assert self.lobby.oldest() == (None if oldest is None else oldest[1])
        if oldest is not None:
            self.requests.remove(oldest)

    @invariant()
    def it_counts_who_waits(self) -> None:
        assert len(self.lobby) == len(self.requests) + len(self.sockets)

    def teardown(self) -> None:
        for _ in range(len(self.lobby)):
            assert self.lobby.next(lambda _: True) is not None
        assert not self.lobby
        assert self.lobby.oldest() is None


TestLobby = LobbyMachine.TestCase
TestLobby.settings = examples(100)
