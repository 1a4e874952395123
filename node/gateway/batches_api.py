"""/v1/files and /v1/batches, as OpenAI's clients know them: many requests in a file, done later."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import trio
from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import JSONResponse, Response, StreamingResponse

from node.gateway.batch_models import (
    BatchList,
    BatchObject,
    BatchRequest,
    FileDeleted,
    FileList,
    FileObject,
)
from node.gateway.batch_runner import BatchRunner
from node.gateway.batch_store import UNDER_WAY, BatchStore, Found
from node.gateway.errors import bad, not_found
from node.gateway.openapi import answers
from wire.errors import StoreFull

PURPOSE = "batch"
PAGE_MAX = 100
PIECE_BYTES = 256 << 10
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}
}


def files_router(store: BatchStore) -> APIRouter:
    """Files in, for batches, and their results out."""
    router = APIRouter(tags=["OpenAI"])

    async def found(request: Request, file: str) -> Found:
        kept: Found | None = await _in_thread(partial(store.file, request.state.owner, file))
        if kept is None:
            raise not_found(f"there is no file {file[:80]!r} here", param="file_id")
        return kept

    @router.post("/v1/files", responses=answers(FileObject), operation_id="createFile")
    async def create(
        request: Request,
        file: Annotated[UploadFile, File()],
        purpose: Annotated[str, Form(max_length=64)],
    ) -> Response:
        """Keep a file of requests, one on each line, for a batch."""
        if purpose != PURPOSE:
            raise bad(f"files are kept for the purpose {PURPOSE!r} alone", param="purpose")
        data = await file.read()
        name = (file.filename or "batch.jsonl")[:200]
        owner, stamp = request.state.owner, store.stamp()
        keep = partial(store.keep_file, owner, stamp, name, purpose, [data])
        return JSONResponse(await _kept(keep))

    @router.get("/v1/files", responses=answers(FileList), operation_id="listFiles")
    async def files(
        request: Request, after: str | None = None, limit: int = PAGE_MAX, purpose: str = ""
    ) -> Response:
        """The files that are kept for this key, latest first."""
        rows = await _in_thread(partial(store.files, request.state.owner))
        rows = [it for it in rows if purpose in ("", it["purpose"])]
        return JSONResponse(_page(rows, after, limit))

    @router.get("/v1/files/{file}", responses=answers(FileObject), operation_id="retrieveFile")
    async def file(file: str, request: Request) -> Response:
        """What is known of a file."""
        return JSONResponse(await found(request, file))

    @router.get(
        "/v1/files/{file}/content",
        responses={**answers(None), **_LINES},
        operation_id="downloadFile",
    )
    async def content(file: str, request: Request) -> Response:
        """The bytes of a file."""
        kept = await found(request, file)
        # Piece by piece: results may be more than there is memory, and several may ask.
        return StreamingResponse(
            _pieces(store.data_of(request.state.owner, kept["id"])),
            headers={"content-length": str(kept["bytes"])},
            media_type="application/jsonl",
        )

    @router.delete("/v1/files/{file}", responses=answers(FileDeleted), operation_id="deleteFile")
    async def delete(file: str, request: Request) -> Response:
        """Forget a file; a batch that is not done yet has to have its own."""
        kept = await found(request, file)
        await _in_thread(partial(store.delete_file, request.state.owner, kept["id"]))
        return JSONResponse({"id": kept["id"], "object": "file", "deleted": True})

    return router


def batches_router(store: BatchStore, runner: BatchRunner) -> APIRouter:
    """Batches: begun, looked at, and ended."""
    router = APIRouter(tags=["OpenAI"])

    async def found(request: Request, batch: str) -> Found:
        kept: Found | None = await _in_thread(partial(store.batch, request.state.owner, batch))
        if kept is None:
            raise not_found(f"there is no batch {batch[:80]!r} here", param="batch_id")
        return kept

    def told(batch: Found) -> Found:
        return {**batch, "request_counts": runner.counts_of(batch)}

    @router.post("/v1/batches", responses=answers(BatchObject), operation_id="createBatch")
    async def create(asked: BatchRequest, request: Request) -> Response:
        """Have every request of a file done, within a day."""
        owner = request.state.owner
        file: Found | None = await _in_thread(partial(store.file, owner, asked.input_file_id))
        if file is None:
            raise not_found(f"there is no file {asked.input_file_id!r} here", param="input_file_id")
        if file["purpose"] != PURPOSE:
            # It may have half a gigabyte, and all of it is read at once.
            words = f"a batch is of a file that was sent for the purpose {PURPOSE!r}"
            raise bad(words, param="input_file_id")
        batch = await _kept(partial(store.new_batch, owner, store.stamp(), asked.model_dump()))
        runner.look()
        return JSONResponse(batch)

    @router.get("/v1/batches", responses=answers(BatchList), operation_id="listBatches")
    async def batches(request: Request, after: str | None = None, limit: int = 20) -> Response:
        """The batches of this key, latest first."""
        rows = await _in_thread(partial(store.batches, request.state.owner))
        return JSONResponse(_page([told(it) for it in rows], after, limit))

    @router.get("/v1/batches/{batch}", responses=answers(BatchObject), operation_id="retrieveBatch")
    async def batch(batch: str, request: Request) -> Response:
        """How far a batch is."""
        return JSONResponse(told(await found(request, batch)))

    @router.post(
        "/v1/batches/{batch}/cancel", responses=answers(BatchObject), operation_id="cancelBatch"
    )
    async def cancel(batch: str, request: Request) -> Response:
        """End a batch; what was done of it is told in its files."""
        async with runner.changing:
            kept = await found(request, batch)
            if kept["status"] not in UNDER_WAY:
                raise bad(f"the batch has ended already: it is {kept['status']}", param="batch_id")
            kept |= {"status": "cancelling", "cancelling_at": int(store.wall_s())}
            await _in_thread(partial(store.keep_batch, request.state.owner, kept))
        runner.cancel(kept["id"])
        return JSONResponse(told(kept))

    return router


def _page(rows: list[Found], after: str | None, limit: int) -> dict[str, Any]:
    """Rows after the one named, so many of them."""
    if not 1 <= limit <= PAGE_MAX:
        raise bad(f"a page has 1 to {PAGE_MAX} rows", param="limit")
    names = [it["id"] for it in rows]
    if after is not None and after not in names:
        raise bad(f"there is no {after[:80]!r} to go on after", param="after")
    first = 0 if after is None else names.index(after) + 1
    data = rows[first : first + limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": first + limit < len(rows),
    }


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await _in_thread(partial(path.open, "rb")) as file:
        while piece := await _in_thread(partial(file.read, PIECE_BYTES)):
            yield piece


async def _kept(keep: Any) -> Any:
    try:
        return await _in_thread(keep)
    except StoreFull as error:
        raise bad(str(error), code="storage_full") from error


async def _in_thread(work: Any) -> Any:
    return await trio.to_thread.run_sync(work)
