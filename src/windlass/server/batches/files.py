"""`/v1/files`: rows for batches come in, and answers go out. No name that a client gives is ever used as a path."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from pydantic import BaseModel
from starlette.responses import FileResponse, Response

from windlass.jobs.batch_queue.batch_queue import BatchQueue
from windlass.jobs.batch_queue.stored_file import BATCH, StoredFile
from windlass.server.batches.cursor import MOST, leaf
from windlass.server.errors.api_error import ApiError, bad_request, not_found
from windlass.server.errors.error_body import errors
from windlass.server.served import Served


class FileFacts(BaseModel):
    """A file that the server keeps."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """Some of them, the latest first."""

    object: Literal["list"] = "list"
    data: list[FileFacts]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


_CONTENT = {"content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}}}


def file_routes(served: Served) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["batches"])

    @router.post("/v1/files", responses=errors(400, 401, 403, 404, 413, 503))
    async def upload(file: Annotated[UploadFile, File()], purpose: Annotated[str, Form()]) -> FileFacts:
        """Takes a file of rows, one JSON object a line. Its purpose must be `batch`."""
        kept = batches_of(served)
        if purpose != BATCH:
            raise bad_request(f"purpose {purpose!r:.60} is not known here; use {BATCH!r}", "purpose")
        if not file.size:
            raise bad_request("the file is empty; write a row a line", "file")
        stored = await served.read(partial(kept.files.add, file.file, file.filename or "rows.jsonl", purpose))
        return _facts(stored)

    @router.get("/v1/files", responses=errors(400, 401, 403, 404))
    async def list_files(
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
        purpose: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> FileList:
        """The files that are kept."""
        kept = [file for file in batches_of(served).files.all() if purpose in (None, file.purpose)]
        found, more = leaf(kept if order == "desc" else kept[::-1], after, limit)
        ends = (found[0].id, found[-1].id) if found else (None, None)
        return FileList(data=[_facts(file) for file in found], first_id=ends[0], last_id=ends[1], has_more=more)

    @router.get("/v1/files/{file_id}", responses=errors(401, 403, 404))
    async def get_file(file_id: str) -> FileFacts:
        """What is known of a file."""
        return _facts(_stored(served, file_id))

    @router.get(
        "/v1/files/{file_id}/content", responses=errors(401, 403, 404) | {200: _CONTENT}, response_class=Response
    )
    async def get_content(file_id: str) -> Response:
        """The bytes of a file."""
        stored = _stored(served, file_id)
        return FileResponse(batches_of(served).files.path(stored.id), media_type="application/jsonl")

    @router.delete("/v1/files/{file_id}", responses=errors(401, 403, 404, 409))
    async def delete_file(file_id: str) -> Deleted:
        """Forgets a file that no open batch needs."""
        stored = _stored(served, file_id)
        if batches_of(served).uses(stored.id):
            raise ApiError(409, f"{stored.id} is read by a batch that is not done; cancel that first", param="file_id")
        await served.read(partial(batches_of(served).files.remove, stored.id))
        return Deleted(id=stored.id)

    return router


def batches_of(served: Served) -> BatchQueue:
    """Raises ApiError where the server takes no batches."""
    if served.batches is None:
        raise not_found("this server takes no batches; start it with --jobs FOLDER", code="no_batches")
    return served.batches


def _stored(served: Served, file_id: str) -> StoredFile:
    stored = batches_of(served).files.get(file_id)
    if stored is None:
        raise not_found(f"there is no file {file_id!r:.60}", "file_id")
    return stored


def _facts(file: StoredFile) -> FileFacts:
    return FileFacts(id=file.id, bytes=file.nbytes, created_at=file.created, filename=file.name, purpose=file.purpose)
