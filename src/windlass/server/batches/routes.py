"""`/v1/batches`: files of rows that are answered when nobody waits, one batch after the other."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, Field

from windlass.jobs.batch_queue.batch_record import BatchRecord, Status
from windlass.server.batches.cursor import MOST, leaf
from windlass.server.batches.files import batches_of
from windlass.server.errors.api_error import bad_request, not_found
from windlass.server.errors.error_body import errors
from windlass.server.questions.fields import check_fields
from windlass.server.questions.sampling_body import FirstWrong, Strict
from windlass.server.served import Served

# OpenAI's own limits on metadata.
MAX_LABELS = 16
Label = Annotated[str, Field(max_length=512)]
Labels = Annotated[dict[str, Label], Field(max_length=MAX_LABELS)]


class BatchBody(Strict):
    """`completion_window` is what a client expects; a batch takes as long as it takes."""

    input_file_id: str
    endpoint: Literal["/v1/completions", "/v1/chat/completions"]
    completion_window: Literal["24h"] = "24h"
    metadata: Annotated[Labels | None, BeforeValidator(FirstWrong(Label))] = None


class RequestCounts(BaseModel):
    """Rows; `total` is 0 until they were counted."""

    total: int
    completed: int
    failed: int


class BatchError(BaseModel):
    """Why a batch failed as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(BaseModel):
    """A list of one."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchFacts(BaseModel):
    """A batch as it stands. Times are in seconds since 1970."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    errors: BatchErrors | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """Some of them, the latest first."""

    object: Literal["list"] = "list"
    data: list[BatchFacts]
    first_id: str | None
    last_id: str | None
    has_more: bool


def batch_routes(served: Served) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["batches"])

    @router.post("/v1/batches", responses=errors(400, 401, 403, 404, 413, 503))
    async def create(body: BatchBody) -> BatchFacts:
        """Has the rows of a file answered. Each row's own `url` says in which form."""
        kept = batches_of(served)
        check_fields(body.model_extra or {}, type(body).model_fields)
        if kept.files.get(body.input_file_id) is None:
            raise bad_request(f"there is no file {body.input_file_id!r:.60}; send it first", "input_file_id")
        made = partial(kept.create, body.endpoint, body.input_file_id, body.completion_window, body.metadata)
        return _facts(await served.read(made))

    @router.get("/v1/batches", responses=errors(400, 401, 403, 404))
    async def list_batches(after: str | None = None, limit: Annotated[int, Query(ge=1, le=MOST)] = 20) -> BatchList:
        """The batches that there were."""
        found, more = leaf(batches_of(served).all(), after, limit)
        ends = (found[0].id, found[-1].id) if found else (None, None)
        return BatchList(data=[_facts(each) for each in found], first_id=ends[0], last_id=ends[1], has_more=more)

    @router.get("/v1/batches/{batch_id}", responses=errors(401, 403, 404))
    async def get_batch(batch_id: str) -> BatchFacts:
        """How a batch stands."""
        return _facts(_record(served, batch_id))

    @router.post("/v1/batches/{batch_id}/cancel", responses=errors(401, 403, 404, 503))
    async def cancel(batch_id: str) -> BatchFacts:
        """Ends a batch after the pass in flight; what was answered can be fetched."""
        record = _record(served, batch_id)
        return _facts(await served.read(partial(batches_of(served).cancel, record.id)))

    return router


def _record(served: Served, batch_id: str) -> BatchRecord:
    record = batches_of(served).get(batch_id)
    if record is None:
        raise not_found(f"there is no batch {batch_id!r:.60}", "batch_id")
    return record


def _facts(record: BatchRecord) -> BatchFacts:
    times: dict[str, Any] = {
        f"{state}_at": record.times.get(state)
        for state in ("in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled")
    }
    told = None
    if record.error is not None:
        told = BatchErrors(data=[BatchError(code="batch_failed", message=record.error)])
    return BatchFacts(
        id=record.id,
        endpoint=record.endpoint,
        input_file_id=record.input_file_id,
        completion_window=record.completion_window,
        status=record.status,
        output_file_id=record.output_file_id,
        error_file_id=record.error_file_id,
        created_at=record.created,
        errors=told,
        request_counts=RequestCounts(total=record.total, completed=record.completed, failed=record.failed),
        metadata=None if record.metadata is None else dict(record.metadata),
        **times,
    )
