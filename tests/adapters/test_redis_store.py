"""`RedisStore` where a connection fails or Redis refuses: what may have happened is never guessed."""

import time
from collections.abc import AsyncIterator, Iterator

import pytest
import redis as redis_client

from service.adapters.redis_link import bulk
from service.adapters.redis_records import doubted, key_bulk, verdict
from service.adapters.redis_store import RedisStore, redis_key
from service.core import record
from service.core.errors import MovedOn, OutcomeUnknown, StoreFull, StoreUnavailable
from service.core.ports import Commit, Lost
from service.core.session import ModelRef, Session, SessionKey
from service.http_limits import MAX_URL_BYTES
from tests.proxy import Proxy
from tests.servers import RedisServer

KEY = SessionKey("faults", "pump-7")


def session(step: int = 0, nonce: int = 1, size: int = 4, epoch: int = 9) -> bytes:
    """The record of a session."""
    return record.encode(Session(ModelRef("m", "1", bytes(8)), epoch, step, nonce, 1000, 60, bytes(size), b""))


def commit(key: SessionKey, epoch: int, step: int, new: bytes, nonce: int = 1) -> Commit:
    """Replace what is at `epoch` and `step`, written with `nonce`."""
    return Commit(key, session(step, nonce, epoch=epoch)[record.VERSION_SLICE], new)


def step(nonce: int = 2, key: SessionKey = KEY) -> Commit:
    return commit(key, 9, 0, session(1, nonce))


@pytest.fixture
def direct(server: RedisServer) -> Iterator["redis_client.Redis[bytes]"]:
    with redis_client.Redis.from_url(server.admin_url) as client:
        client.set(redis_key(KEY), session())
        yield client


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[RedisStore]:
    store = RedisStore(proxy.url, timeout_s=0.5)
    yield store
    await store.close()


@pytest.fixture
async def near(server: RedisServer) -> AsyncIterator[RedisStore]:
    """A store with nothing between it and Redis."""
    store = RedisStore(server.url)
    yield store
    await store.close()


def test_what_is_not_confirmed_proves_nothing() -> None:
    """A record that came in the place of another may be forgotten, and that with it."""
    doubt = OutcomeUnknown("not confirmed")
    moved = verdict(session(2), step().version, step().record, repeated=True)
    assert isinstance(moved, MovedOn)
    assert moved.version == session(2)[record.VERSION_SLICE]
    assert doubted(moved, doubt) is doubted(None, doubt) is doubt
    assert doubted(Lost(None), doubt) == Lost(None)


@pytest.mark.usefixtures("direct")
class TestConnections:
    @pytest.mark.parametrize("fate", ["lose the reply", "lose the request", "hang"])
    async def test_a_commit_whose_exchange_was_lost_is_made_once(
        self, store: RedisStore, proxy: Proxy, fate: str
    ) -> None:
        await store.commit([commit(SessionKey("faults", "other"), 1, 1, session())])  # the script is known
        proxy.once(b"EVALSHA", fate)
        assert await store.commit([step()]) == [None]
        assert proxy.broken == 1
        assert await store.load([KEY]) == [session(1, nonce=2)]

    async def test_a_rival_who_came_between_is_not_mistaken_for_oneself(
        self, store: RedisStore, proxy: Proxy, near: RedisStore
    ) -> None:
        proxy.once(b"EVAL", "lose the request")
        assert await near.commit([step(nonce=3)]) == [None]
        assert await store.commit([step(nonce=2)]) == [Lost(session(1, nonce=3))]

    async def test_where_others_have_written_since_the_outcome_is_called_unknown(
        self, store: RedisStore, proxy: Proxy, near: RedisStore
    ) -> None:
        """Ours arrives, its reply is lost, and a rival steps on from it before we ask again."""
        await store.commit([commit(SessionKey("faults", "other"), 1, 1, session())])  # the script is known
        proxy.once(b"EVALSHA", "lose the reply")
        proxy.meanwhile = lambda: near.commit([commit(KEY, 9, 1, session(2, nonce=3), nonce=2)])
        (verdict,) = await store.commit([step(nonce=2)])
        assert isinstance(verdict, OutcomeUnknown)
        assert await near.load([KEY]) == [session(2, nonce=3)]

    async def test_a_new_life_whose_reply_was_lost_is_not_begun_again(
        self, store: RedisStore, proxy: Proxy, near: RedisStore
    ) -> None:
        reborn = session(0, epoch=77)
        await store.commit([commit(SessionKey("faults", "other"), 1, 1, session())])
        proxy.once(b"EVALSHA", "lose the reply")
        stepped = session(1, nonce=3, epoch=77)
        proxy.meanwhile = lambda: near.commit([commit(KEY, 77, 0, stepped)])
        assert await store.commit([commit(KEY, 9, 0, reborn)]) == [None]
        assert await near.load([KEY]) == [stepped]

    async def test_creation_whose_reply_was_lost_is_not_a_conflict_with_oneself(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        new = SessionKey("faults", "new")
        proxy.once(b"EVAL", "lose the reply")
        assert await store.create(new, session()) is None

    async def test_deletion_whose_reply_was_lost_has_happened(self, store: RedisStore, proxy: Proxy) -> None:
        proxy.once(b"DEL", "lose the reply")
        assert await store.delete(KEY)
        assert await store.load([KEY]) == [None]

    async def test_a_session_opened_since_is_not_deleted_in_its_predecessors_place(
        self, store: RedisStore, proxy: Proxy, near: RedisStore
    ) -> None:
        proxy.once(b"DEL", "lose the reply")
        proxy.meanwhile = lambda: near.create(KEY, session(nonce=5))
        with pytest.raises(OutcomeUnknown):
            await store.delete(KEY)
        assert await near.load([KEY]) == [session(nonce=5)]

    async def test_where_no_reply_comes_at_all_the_outcome_is_called_unknown(
        self, store: RedisStore, proxy: Proxy
    ) -> None:
        proxy.fate = lambda request: "lose the reply" if b"EVAL" in request else "pass"
        with pytest.raises(OutcomeUnknown):
            await store.commit([step()])

    async def test_a_read_that_failed_leaves_nothing_in_doubt(self, store: RedisStore, proxy: Proxy) -> None:
        proxy.fate = lambda request: "hang" if b"MGET" in request else "pass"
        with pytest.raises(StoreUnavailable):
            await store.load([KEY])

    async def test_the_script_is_loaded_again_where_it_was_forgotten(
        self, store: RedisStore, direct: "redis_client.Redis[bytes]"
    ) -> None:
        assert await store.commit([step()]) == [None]
        direct.script_flush()
        assert await store.commit([commit(KEY, 9, 1, session(2), nonce=2)]) == [None]

    async def test_it_heals_when_redis_is_back(self, store: RedisStore, server: RedisServer) -> None:
        server.kill()
        with pytest.raises(StoreUnavailable):
            await store.commit([step()])
        server.start()
        assert await store.load([KEY]) == [None]


async def test_out_of_memory_leaves_every_record_whole_and_tells_each_session(
    server: RedisServer, near: RedisStore
) -> None:
    keys = [SessionKey("faults", str(i)) for i in range(50)]
    for key in keys:
        assert await near.create(key, session()) is None
    with redis_client.Redis.from_url(server.admin_url) as direct:
        direct.config_set("maxmemory", direct.info("memory")["used_memory"] + 40_000)
        commits = [commit(key, 9, 0, session(1, size=8192)) for key in keys]
        verdicts = await near.commit(commits)
        verdicts += await near.commit([commit(key, 9, 0, session(1, nonce=7, size=8192)) for key in keys])
        refused = {key for key, verdict in zip([*keys, *keys], verdicts, strict=True) if isinstance(verdict, StoreFull)}
        assert refused, "memory ran out"
        direct.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await near.create(SessionKey("faults", "one too many"), session())
        direct.config_set("maxmemory", 0)
    stored = dict(zip(keys, await near.load(keys), strict=True))
    for key, told in zip(keys, verdicts[:50], strict=True):
        made = told is None or verdicts[50 + keys.index(key)] is None
        assert record.decode(stored[key] or b"").step == (1 if made else 0)


async def test_what_is_no_record_is_handed_out_as_it_is(near: RedisStore, direct: "redis_client.Redis[bytes]") -> None:
    foreign = SessionKey("faults", "foreign")
    for content in (b"not a record, but long enough to be one" * 3, b"short"):
        direct.set(redis_key(foreign), content)
        assert await near.load([KEY, foreign]) == [session(), content]
        assert await near.commit([step(key=foreign)]) == [Lost(content)]


async def test_a_key_that_holds_something_else_is_alone_with_its_error(
    near: RedisStore, direct: "redis_client.Redis[bytes]"
) -> None:
    first, spoiled = SessionKey("faults", "first"), SessionKey("faults", "spoiled")
    await near.create(first, session())
    direct.rpush(redis_key(spoiled), "a list")
    made, refused, also_made = await near.commit([step(key=first), step(key=spoiled), step()])
    assert (made, also_made) == (None, None)
    assert isinstance(refused, StoreUnavailable)
    assert "WRONGTYPE" in refused.detail
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await near.create(spoiled, session())


async def test_a_replica_that_cannot_write_is_named(near: RedisStore, direct: "redis_client.Redis[bytes]") -> None:
    direct.config_set("replica-read-only", "yes")
    direct.replicaof("127.0.0.1", "1")
    (verdict,) = await near.commit([step()])
    assert isinstance(verdict, StoreUnavailable)
    assert "READONLY" in verdict.detail or "read only" in verdict.detail


async def test_a_wrong_password_is_named_and_not_told(server: RedisServer, direct: "redis_client.Redis[bytes]") -> None:
    direct.config_set("requirepass", "secret")
    store = RedisStore(server.url.replace("redis://", "redis://:guess@"))
    with pytest.raises(StoreUnavailable, match="credentials") as caught:
        await store.load([KEY])
    assert "guess" not in str(caught.value)
    await store.close()


async def test_what_an_operator_should_change_is_said(near: RedisStore, server: RedisServer) -> None:
    with redis_client.Redis.from_url(server.admin_url) as direct:
        direct.config_set("maxmemory-policy", "allkeys-lru")
    warnings = " ".join((await near.health()).warnings)
    assert "Set maxmemory-policy noeviction" in warnings
    assert "Set appendonly yes" in warnings


async def test_there_is_nothing_to_say_of_a_redis_that_keeps_everything() -> None:
    with RedisServer(appendonly="yes") as server:
        store = RedisStore(server.url)
        assert (await store.health()).warnings == []
        await store.close()


async def test_a_listing_goes_on_over_a_restart_of_the_server() -> None:
    """A cursor of SCAN means nothing to a server that has been started anew: it hashes otherwise."""
    ids = {str(number) for number in range(400)}
    with RedisServer(appendonly="yes") as server:
        store = RedisStore(server.url)
        for id_ in ids:
            assert await store.create(SessionKey("t", id_), session(0)) is None
        page = await store.scan("t", None, None, 200)
        found = {id_ for id_, _ in page.sessions}
        server.restart()
        while page.cursor is not None:
            page = await store.scan("t", None, page.cursor, 100)
            found |= {id_ for id_, _ in page.sessions}
        assert found == ids
        await store.close()


class TestListing:
    """A tenant with few sessions among many of others'."""

    @pytest.fixture
    def few(self, direct: "redis_client.Redis[bytes]") -> set[str]:
        """The names of the tenant's own."""
        strangers = {f"conveyor:{{0}}:crowd:{i}": b"" for i in range(30_000)}
        own = [SessionKey("few", f"{i}-{'n' * 120}") for i in range(30)]
        direct.mset(strangers | {redis_key(key): session() for key in own})
        return {key.session_id for key in own}

    @pytest.mark.parametrize("limit", [1, 10, 1000])
    async def test_it_takes_few_pages_however_small_they_are(self, near: RedisStore, few: set[str], limit: int) -> None:
        pages = [await near.scan("few", None, None, limit)]
        while pages[-1].cursor is not None:
            assert len(pages[-1].cursor) < MAX_URL_BYTES // 2
            pages.append(await near.scan("few", None, pages[-1].cursor, limit))
        assert sorted(id_ for page in pages for id_, _ in page.sessions) == sorted(few)
        assert len(pages) <= len(few) // limit + 10

    async def test_a_page_comes_soon_though_nothing_was_found(
        self, store: RedisStore, proxy: Proxy, few: set[str]
    ) -> None:
        """Thirty scans and more are needed, and each takes a tenth of a second."""
        proxy.delay = lambda: 0.05
        begun = time.monotonic()
        page = await store.scan("nobody", None, None, 10)
        assert page.sessions == []
        assert page.cursor is not None
        assert time.monotonic() - begun < 5
        proxy.delay = lambda: 0.0
        following = await store.scan("few", None, page.cursor, 1000)
        assert {id_ for id_, _ in following.sessions} <= few


@pytest.mark.parametrize("session_id", ["a", "pump-7", "x" * 128, "ü:ä", "{0}", "%s\r\n"])
def test_a_key_goes_over_the_wire_as_it_is_called(session_id: str) -> None:
    for tenant in ("default", "plant-1", "é"):
        named = SessionKey(tenant, session_id)
        assert key_bulk(named) == bulk(redis_key(named).encode())
