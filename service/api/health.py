"""Health, readiness, metrics: for orchestrators and dashboards."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from service.api.dependencies import Caller, Serving
from service.api.hot import needing
from service.api.schemas import Liveness, ModelFailure, Readiness
from service.core.access import Scope
from service.core.errors import ConveyorError

router = APIRouter(tags=["health"], route_class=needing(None))
private = APIRouter(tags=["health"], route_class=needing(Scope.METRICS))


@router.get("/healthz")
async def healthz() -> Liveness:
    """Say that the process answers. Touches nothing else."""
    return Liveness()


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}})
async def readyz(caller: Caller, services: Serving) -> Response:
    """Say whether steps should be sent here: the store answers, a model is served, the process is to stay."""
    warnings = []
    ready = not services.stopping
    if services.stopping:
        warnings.append("this process has been told to stop")
    try:
        health = await services.store.health()
        store = health.description
        warnings += health.warnings
    except ConveyorError as error:
        ready = False
        store = error.detail
    models = [f"{model.ref.name}/{model.ref.version}" for model in services.models]
    readiness = Readiness(ready=ready and bool(models))
    if Scope.METRICS in caller.scopes:
        readiness.store = store
        readiness.models = models
        readiness.failed_models = [ModelFailure(path=f.path, reason=f.reason) for f in services.models.failures]
        readiness.warnings = warnings
    content = readiness.model_dump_json(exclude_unset=True)
    return Response(content, 200 if readiness.ready else 503, media_type="application/json")


@private.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: Serving) -> Response:
    """Give the service's metrics, those of all its workers, in Prometheus' text format."""
    content, media_type = services.exposition()
    return Response(content, headers={"content-type": media_type})


# Load balancers may ask without wanting an answer's body.
router.add_api_route("/healthz", healthz, methods=["HEAD"], include_in_schema=False)
router.add_api_route("/readyz", readyz, methods=["HEAD"], include_in_schema=False)
