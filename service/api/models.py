"""``/v1/models``: what is served, and what its numbers mean."""

from fastapi import APIRouter

from service.api.dependencies import Serving
from service.api.hot import needing
from service.api.schemas import ModelInfo, ModelList, model_info
from service.core.ports import Models

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=needing(None))


@router.get("")
async def list_models(services: Serving) -> ModelList:
    """List all models in all their versions."""
    return ModelList(models=[_info(services.models, model.ref.name, model.ref.version) for model in services.models])


@router.get("/{name}")
async def get_model(name: str, services: Serving) -> ModelInfo:
    """Describe a model's latest version."""
    return _info(services.models, name)


@router.get("/{name}/versions/{version}")
async def get_model_version(name: str, version: str, services: Serving) -> ModelInfo:
    """Describe a version of a model."""
    return _info(services.models, name, version)


def _info(models: Models, name: str, version: str | None = None) -> ModelInfo:
    return model_info(models.find(name, version), list(models.versions(name)))
