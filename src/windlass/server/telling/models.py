"""`/v1/models`: the one model that is served."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from windlass.server.errors.error_body import LOOKING, errors
from windlass.server.served import Served


class ModelFacts(BaseModel):
    """`max_model_len`: tokens of the longest prompt and answer together."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "windlass"
    max_model_len: int


class ModelList(BaseModel):
    """All there are."""

    object: Literal["list"] = "list"
    data: list[ModelFacts]


def model_routes(served: Served) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["tell"])

    def facts() -> ModelFacts:
        return ModelFacts(id=served.model, created=served.created, max_model_len=served.max_model_len)

    @router.get("/v1/models", responses=LOOKING)
    async def list_models() -> ModelList:
        """The models that can be asked."""
        return ModelList(data=[facts()])

    @router.get("/v1/models/{model:path}", responses=errors(401, 403, 404))
    async def get_model(model: str) -> ModelFacts:
        """One of them."""
        served.check_model(model)
        return facts()

    return router
