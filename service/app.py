"""The composition root: which adapters the engine gets, and which routes the world gets."""

import multiprocessing
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path

import structlog
from fastapi import FastAPI

from service import logs
from service.adapters.deferred import DeferredObserver
from service.adapters.metrics import PrometheusObserver
from service.adapters.model_repository import ModelRepository
from service.adapters.model_trial import Trials
from service.api import health, models, openapi, problems, sessions, steps, stream, tickets
from service.api.dependencies import Limits, Services, State
from service.api.gate import Gate
from service.api.handshake import Handshakes
from service.api.hot import Application, Layer
from service.api.origin import SocketOrigins, with_cors
from service.api.rate_limits import RateLimits
from service.api.socket_quota import SocketQuota
from service.authentication import credentials, watched
from service.banner import banner
from service.beside import beside
from service.core.rate import rate_limit
from service.drain import Drain
from service.engine import Engine
from service.memory import keep_what_is_freed, spare_the_collector
from service.memory_limit import available_bytes
from service.quotas import Quota
from service.rates import Rates
from service.sessions import Sessions
from service.settings import Settings
from service.stores import StartupError, open_store
from service.trials import begin_trials

log = structlog.get_logger(__name__)


OnReady = Callable[[Services], Awaitable[None]]

BANNER = "banner.txt"
"""In the folder that workers share: what to tell a person when all of them serve."""

_CACHED_SHARE = 8
"""Of the memory that there is, one part in so many is for records, where the settings do not say."""


def create_app(
    settings: Settings, on_ready: OnReady | None = None, *, shared: Path | None = None, trials: Trials | None = None
) -> FastAPI:
    """Return the application; `on_ready` is called when it can serve.

    `shared` is the folder in which the processes of one service add up their metrics. `trials` of the models may be
    under way already.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            services = await _services(settings, stack, shared, trials)
            if services.authenticator is not None:
                await stack.enter_async_context(watched(services, services.authenticator))
            spare_the_collector()
            keep_what_is_freed()
            stack.enter_context(Drain(services, settings.drain_timeout_s, settings.drain_delay_s))
            if on_ready is not None:
                await on_ready(services)
            yield {"services": services}

    app = Application(
        hot=stream.routes + steps.router.routes,
        max_body_bytes=settings.max_body_bytes,
        front=_layers(settings),
        title="Conveyor",
        version=version("conveyor"),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.routes.extend(sessions.router.routes + models.router.routes)
    app.router.routes.extend(tickets.router.routes + health.router.routes + health.private.routes)
    problems.install(app)
    openapi.install(app, authenticated=settings.authenticates)
    return app


def _layers(settings: Settings) -> list[Layer]:
    """Return what stands in front of the application, the outermost first.

    Whose page asks, who asks, how much they may ask for.
    """
    origins = settings.allowed_origins or ()
    layers: list[Layer] = [partial(with_cors, allowed=origins)] if origins else []
    layers.append(partial(Handshakes, layers=[partial(SocketOrigins, allowed=origins), tickets.TicketHolders]))
    if settings.authenticates:
        layers.append(Gate)
    if settings.authenticates or settings.rate_limit is not None:
        layers.append(RateLimits)
    if settings.max_sockets is not None:
        layers.append(partial(SocketQuota, limit=settings.max_sockets))
    return layers


def create_worker(settings: Settings, url: str, shared: Path) -> FastAPI:
    """Return the application of one of several processes, which leaves what to tell a person in `shared`."""
    logs.configure(settings.log_level, settings.log_format)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent, shared), daemon=True).start()

    async def announce(services: Services) -> None:
        (shared / BANNER).write_text(await describe(url, services, settings.workers))

    return create_app(settings, announce, shared=shared)


async def describe(url: str, services: Services, workers: int = 1) -> str:
    """Return what a person is told when the service is ready."""
    health = await services.store.health()
    authenticated = services.authenticator is not None
    return banner(url, health.description, list(services.models), workers, authenticated=authenticated)


def _end_with(parent: BaseProcess, shared: Path) -> None:
    """Stop in order when the parent has gone, however it went: its workers would keep the port to themselves."""
    parent.join()
    shutil.rmtree(shared, ignore_errors=True)
    signal.raise_signal(signal.SIGTERM)


async def _services(settings: Settings, stack: AsyncExitStack, shared: Path | None, trials: Trials | None) -> Services:
    """Make the parts, the store first; `stack` ends them in the opposite order. Raises `StartupError`."""
    try:
        authenticator = credentials(settings)
    except ValueError as error:
        raise StartupError(str(error)) from error
    store = await open_store(settings, stack)
    repository = load_models(settings, max_batch=settings.max_batch, trials=trials)
    if not list(repository):
        reasons = "".join(f"\n  {failure.path}: {failure.reason}" for failure in repository.failures)
        raise StartupError(
            f"no model can be served from {settings.models.absolute()}; a model is <name>/<version>/model.onnx there, "
            f"written by conveyor-export{reasons}"
        )
    observer = PrometheusObserver(shared)
    engine = Engine(
        store,
        repository,
        DeferredObserver(observer),
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        max_wait_s=settings.max_wait_s,
        cache_bytes=cache_bytes(settings),
        step_timeout_s=settings.step_timeout_s,
    )
    stack.push_async_callback(engine.close)
    besides = beside(store)
    default = None if settings.rate_limit is None else rate_limit(settings.rate_limit, settings.rate_burst)
    rates = Rates(default, besides.buckets, observer)
    stack.push_async_callback(rates.close)
    return Services(
        engine=engine,
        sessions=Sessions(
            store,
            repository,
            engine,
            default_ttl_s=settings.session_ttl_s,
            max_ttl_s=settings.max_ttl_s,
            max_history=settings.max_history,
            quota=None if settings.max_sessions is None else Quota(settings.max_sessions, besides.places, store),
        ),
        models=repository,
        store=store,
        limits=Limits(
            max_width=2 * max(model.spec.width for model in repository),
            max_chunk=settings.max_chunk,
            max_frame_steps=settings.max_frame_steps,
            max_in_flight=settings.max_in_flight,
            ticket_ttl_s=settings.ticket_ttl_s,
        ),
        rates=rates,
        tickets=besides.tickets,
        exposition=observer.exposition,
        authenticator=authenticator,
    )


def cache_bytes(settings: Settings) -> int:
    """Return how much memory a process may take to remember sessions."""
    if settings.cache_mib is not None:
        return settings.cache_mib * 2**20
    return available_bytes() // _CACHED_SHARE // settings.workers


def load_models(settings: Settings, *, max_batch: int, trials: Trials | None = None) -> ModelRepository:
    """Return the models that can be served, each tried out first where that is on, by `trials` under way or its own."""
    trials = trials or begin_trials(settings, max_batch=max_batch)
    with trials or nullcontext():
        return ModelRepository.load(
            settings.models, max_batch=max_batch, max_bytes=settings.max_model_bytes, trials=trials
        )
