"""The service is killed, stopped, frozen, and restarted."""

import asyncio
import signal
from random import Random

import psutil

from tests.chaos.checker import RETRIED, Terms
from tests.chaos.deployments import Deployment, gateway, two_workers
from tests.chaos.nemesis import Nemesis
from tests.faults.test_workers import models_ready, workers_of
from tests.servers import ConveyorServer, wait_until

FROM_NGINX = frozenset({"http_502", "http_504"})
"""What nginx answers for a replica that died with a request in its hands."""

RESUMED = Terms(errors=frozenset({"closed_1012"}), opening_errors=frozenset({"shutting_down"}))
"""No step fails. A socket ends, and its client connects again; should it come to a replica that is about to leave, it
is sent away with 1012 and connects once more."""

BACK_IN_ROTATION_S = 2.2
"""After a failure nginx leaves a replica out until more than `fail_timeout` (1 s) has passed, in whole seconds."""


async def kill(deployment: Deployment, chance: Random) -> None:
    service = chance.choice(deployment.services)
    service.kill()
    await asyncio.sleep(chance.uniform(0, 0.3))
    await asyncio.to_thread(service.start)


async def terminate(deployment: Deployment, chance: Random) -> None:
    await _restart(chance.choice(deployment.services))


async def freeze(deployment: Deployment, chance: Random) -> None:
    service = chance.choice(deployment.services)
    service.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(chance.uniform(0.2, 2.5))
    finally:
        service.signal(signal.SIGCONT)


async def kill_worker(deployment: Deployment, chance: Random) -> None:
    (service,) = deployment.services
    served = models_ready(service)
    psutil.Process(chance.choice(sorted(workers_of(service)))).kill()
    replaced = await asyncio.to_thread(wait_until, lambda: models_ready(service) > served, 20)
    assert replaced, "a worker that was killed was not replaced"


async def restart_all(deployment: Deployment, chance: Random) -> None:
    """One replica after the other, each back in nginx's rotation before the next one's turn."""
    for service in deployment.services:
        await _restart(service)
        await asyncio.sleep(BACK_IN_ROTATION_S + chance.uniform(0, 0.3))


async def _restart(service: ConveyorServer) -> None:
    service.terminate()
    await asyncio.to_thread(service.wait)
    await asyncio.to_thread(service.start)


NEMESES = [
    Nemesis("service: SIGKILL, restart", kill),
    Nemesis("service: SIGTERM, restart", terminate),
    Nemesis("service: SIGSTOP, SIGCONT", freeze),
    Nemesis("one of two workers: SIGKILL", kill_worker, two_workers),
    Nemesis("one of two replicas behind nginx: SIGKILL", kill, gateway, Terms(errors=RETRIED | FROM_NGINX)),
    Nemesis("rolling restart behind nginx", restart_all, gateway, RESUMED),
]
