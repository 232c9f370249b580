"""`Places` on Redis: a sorted set per tenant, of session ids by when to look at them."""

from collections.abc import Sequence
from typing import Any

from service.adapters.redis_exchanges import TAG, Exchanges
from service.adapters.redis_link import NotConfirmed, Script, bulk
from service.core.errors import OutcomeUnknown, StoreUnavailable
from service.core.quota import BEING_MADE_S, LOOK_AT_ONCE, Look, Place
from service.core.session import SessionKey


class RedisPlaces:
    """See `service.core.quota.Places`. Each of its scripts may be carried out twice, and need not be as safe as a step.

    A score is in seconds of Redis's clock, so that those of its clients need not agree. Of a session that is being made
    it ends in a half, or in three quarters where that was begun more than once.
    """

    def __init__(self, link: Exchanges) -> None:
        self._link = link
        self._take = Script("take_place")
        self._keep = Script("keep_place")
        self._release = Script("release_place")
        self._settle = Script("settle_places")

    async def take(self, key: SessionKey, limit: int) -> list[Place] | None:
        due = await self._run(self._take, key.tenant, key.session_id, limit, BEING_MADE_S, LOOK_AT_ONCE)
        if due is None:
            return None
        return [Place(id_.decode(), float(score)) for id_, score in zip(due[::2], due[1::2], strict=True)]

    async def keep(self, key: SessionKey, look_in_s: int) -> None:
        await self._run(self._keep, key.tenant, key.session_id, look_in_s)

    async def release(self, key: SessionKey) -> None:
        await self._run(self._release, key.tenant, key.session_id, 0)

    async def give_up(self, key: SessionKey) -> None:
        await self._run(self._release, key.tenant, key.session_id, 0.5)

    async def settle(self, tenant: str, looks: Sequence[Look]) -> None:
        arguments: list[Any] = []
        for (session_id, look_at), again_in_s in looks:
            arguments += (session_id, look_at, "" if again_in_s is None else again_in_s)
        await self._run(self._settle, tenant, *arguments)

    async def _run(self, script: Script, tenant: str, *arguments: Any) -> Any:
        bulks = [bulk(_key(tenant)), *(bulk(str(argument).encode()) for argument in arguments)]
        try:
            return (await self._link.run(script, 1, len(arguments), bulks)).value
        except NotConfirmed as error:
            return error.reply.value
        except OutcomeUnknown as error:
            raise StoreUnavailable(
                f"Redis did not say whether there is room for a session: {error.__cause__}"
            ) from error


def _key(tenant: str) -> bytes:
    return f"conveyor:quota:{{{TAG}}}:{tenant}".encode()
