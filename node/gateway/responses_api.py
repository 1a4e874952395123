"""/v1/responses, as OpenAI's newer clients know it: a thin translation of a chat."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from node.gateway.chat import chat_tasks
from node.gateway.dialects import prompt_tokens_of, streamed
from node.gateway.errors import HttpError, bad, not_found
from node.gateway.generating import TokenStream, headers_of
from node.gateway.openapi import answers
from node.gateway.response_memory import KeptResponse, ResponseMemory
from node.gateway.responses import ResponseDeleted, ResponseItems, ResponseTokens
from node.gateway.responses_answer import ResponsesFraming, output_of, response_map
from node.gateway.responses_request import (
    ResponsesRequest,
    messages_of,
    response_to_chat,
)
from node.gateway.task_service import TaskService


def owner_of(request: Request) -> str:
    """Whose responses are whose: those of one API key, or of all that need none."""
    owner: bytes = request.state.owner
    return owner.hex()


def responses_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])
    memory = ResponseMemory()

    def before(asked: ResponsesRequest, owner: str) -> list[dict[str, Any]]:
        """The messages that a request goes on from."""
        if not messages_of(asked):
            raise bad("the input is empty", param="input")
        if asked.previous_response_id is None:
            return []
        found = memory.find(owner, asked.previous_response_id)
        if found is None:
            raise not_found(
                f"there is no response {asked.previous_response_id!r} here any more: send the"
                " conversation again",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return found

    @router.post("/v1/responses", responses=streamed(), operation_id="createResponse")
    async def create(asked: ResponsesRequest, request: Request) -> Response:
        """A model's answer, whole or streamed; `previous_response_id` goes on from one before."""
        owner = owner_of(request)
        earlier = before(asked, owner)
        generating = await chat_tasks(service, response_to_chat(asked, earlier), request)
        framing = ResponsesFraming(asked, memory, owner, [*earlier, *messages_of(asked)])
        if asked.stream:
            return TokenStream(generating, framing)
        completion = await generating.answer_map()
        told = response_map(asked, completion, output_of(completion))
        framing.keep(told)
        return JSONResponse(told, headers=headers_of(generating.choices))

    @router.post(
        "/v1/responses/input_tokens",
        responses=answers(ResponseTokens),
        operation_id="countResponseTokens",
    )
    async def count(asked: ResponsesRequest, request: Request) -> Response:
        """How many tokens the input is to the model, with the responses before it."""
        chat = response_to_chat(asked, before(asked, owner_of(request)))
        tokens = await prompt_tokens_of(service, request, chat)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": tokens})

    _kept(router, memory)
    return router


def _kept(router: APIRouter, memory: ResponseMemory) -> None:
    """The responses that are kept: in memory, each for the key that asked for it."""

    def found(request: Request, response: str) -> KeptResponse:
        kept = memory.kept(owner_of(request), response)
        if kept is None:
            raise _missing(response)
        return kept

    @router.get("/v1/responses/{response}", responses=streamed(), operation_id="retrieveResponse")
    async def retrieve(response: str, request: Request, stream: str = "false") -> Response:
        """A response that is still kept. It cannot be streamed again."""
        if stream.lower() not in ("false", "0"):
            raise bad("stream is not done here: a kept response is told whole", param="stream")
        return JSONResponse(found(request, response).response)

    @router.delete(
        "/v1/responses/{response}",
        responses=answers(ResponseDeleted),
        operation_id="deleteResponse",
    )
    async def delete(response: str, request: Request) -> Response:
        """Forget a response; those that went on from it have their own copy of what was said."""
        if not memory.forget(owner_of(request), response):
            raise _missing(response)
        return JSONResponse({"id": response, "object": "response", "deleted": True})

    @router.get(
        "/v1/responses/{response}/input_items",
        responses=answers(ResponseItems),
        operation_id="listInputItems",
    )
    async def items(response: str, request: Request) -> Response:
        """What a response was asked, without the responses before it."""
        rows = found(request, response).items
        return JSONResponse(
            {
                "object": "list",
                "data": rows,
                "first_id": rows[0]["id"] if rows else None,
                "last_id": rows[-1]["id"] if rows else None,
                "has_more": False,
            }
        )


def _missing(response: str) -> HttpError:
    return not_found(
        f"there is no response {response[:80]!r} here any more; they are kept in memory, the last"
        " of each key",
        param="response_id",
        code="response_not_found",
    )
