"""POST /tokenize and /detokenize: a model's own tokens, told by a generation of nothing."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from node.gateway.completions import token_name
from node.gateway.dialects import chat_of, looked_at
from node.gateway.errors import bad
from node.gateway.openapi import answers
from node.gateway.requests import Name, RequestBody, Text, TokenIds, Tool
from node.gateway.sampling import chat_input, generation_of
from node.gateway.task_service import TaskService
from wire.operations import GENERATE


class TokenizeRequest(RequestBody):
    """POST /tokenize: a prompt, or a conversation as the model's template writes it."""

    model: Name
    prompt: Text | None = None
    messages: Annotated[list[dict[str, Any]], Field(max_length=4096)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(RequestBody):
    """POST /detokenize."""

    model: Name
    tokens: TokenIds


def tokenize_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Baton"])

    @router.post("/tokenize", responses=answers(None), operation_id="tokenize")
    async def tokenize(asked: TokenizeRequest, request: Request) -> Response:
        """The tokens of a prompt, with those that the model wants at its beginning."""
        if bool(asked.prompt) == bool(asked.messages):
            raise bad("give either a prompt or messages", param="prompt")
        row = service.catalogue.find(asked.model)
        await service.catalogue.check_does(row, GENERATE)
        if asked.messages:
            tools = [it.model_dump(exclude_none=True) for it in asked.tools or ()]
            fields = {"model": asked.model, "messages": asked.messages, "tools": tools or None}
            data = chat_input(chat_of(fields))
        else:
            data = generation_of(prompt=asked.prompt or "")
        tokens, count = await looked_at(service, service.terms(request), row.id, data)
        manifest = await service.catalogue.manifest(row)
        told: dict[str, Any] = {
            "count": count,
            "max_model_len": manifest.parameters.get("context") if manifest is not None else None,
            "tokens": [it.id for it in tokens],
        }
        if asked.return_token_strs:
            told["token_strs"] = [token_name(it.text) for it in tokens]
        return JSONResponse(told)

    @router.post("/detokenize", responses=answers(None), operation_id="detokenize")
    async def detokenize(asked: DetokenizeRequest, request: Request) -> Response:
        """The text of tokens."""
        row = service.catalogue.find(asked.model)
        await service.catalogue.check_does(row, GENERATE)
        data = generation_of(prompt_tokens=asked.tokens)
        tokens, _ = await looked_at(service, service.terms(request), row.id, data)
        text = b"".join(it.text for it in tokens).decode(errors="replace")
        return JSONResponse({"prompt": text})

    return router
