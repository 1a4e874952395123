"""A gateway's models from Python, under trio or asyncio. `import node` gives access to it.

    async with node.connect("http://127.0.0.1:8000", key=...) as net:
        async for piece in net.chat("qwen3-0.6b", "What is a baton?"):
            print(piece, end="")

Every call ends: with an answer, or within its deadline with one of `wire.errors`.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from node.client.answers import (
    Embedded,
    Inferred,
    ModelInfo,
    Pieces,
    ReceiptInfo,
    Reranked,
    TaskResult,
)
from node.client.http import (
    CONNECT_S,
    HttpCall,
    ResponseLine,
    json_call,
    terms_of,
    within,
)
from node.client.paying import CallPayments
from node.client.reading import (
    from_safetensors,
    read_json,
    to_safetensors,
    vectors_of,
)
from wire.amount import read_credits
from wire.errors import Disconnected, InputError, Malformed, TaskFailed

ADDRESS_DEFAULT = "http://127.0.0.1:8000"
DEADLINE_S_DEFAULT = 600.0
RETRIES_DEFAULT = 2
STATE_DEFAULT = "~/.baton"
# The pause between the end of a task's events and the question for its result.
AGAIN_S = 0.05
TENSORS_TYPE = "application/x-safetensors"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Messages = str | Sequence[Mapping[str, Any]]


class Net:
    """One gateway, and the network behind it. `deadline_s` is in seconds, for each call."""

    def __init__(self, line: ResponseLine, deadline_s: float) -> None:
        self._line = line
        self._deadline_s = deadline_s

    def chat(
        self,
        model: str,
        messages: Messages,
        *,
        deadline_s: float | None = None,
        verdicts: str | None = None,
        **options: Any,
    ) -> Pieces:
        """A model's answer to a conversation, or to one message, piece by piece.

        `options` are OpenAI's: `temperature`, `max_tokens`, `tools`, … With `verdicts="2/3"` two of
        three verifiers have to agree before the answer ends.
        """
        asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        body = {"model": model, "messages": list(asked), **options}
        return self._pieces("/v1/chat/completions", body, deadline_s, verdicts)

    def complete(
        self,
        model: str,
        prompt: str,
        *,
        deadline_s: float | None = None,
        verdicts: str | None = None,
        **options: Any,
    ) -> Pieces:
        """A model's continuation of a prompt, piece by piece; no chat template is applied."""
        body = {"model": model, "prompt": prompt, **options}
        return self._pieces("/v1/completions", body, deadline_s, verdicts)

    async def embed(
        self,
        model: str,
        texts: str | Sequence[str],
        *,
        deadline_s: float | None = None,
        verdicts: str | None = None,
    ) -> Embedded:
        """A vector for each text."""
        wait_s = self._wait_s(deadline_s)
        asked = [texts] if isinstance(texts, str) else list(texts)
        body = {"model": model, "input": asked, "encoding_format": "base64"}
        terms = terms_of(wait_s, verdicts)
        told = await self._json(json_call("/v1/embeddings", body, wait_s, headers=terms))
        with _as_promised():
            rows = [base64.b64decode(it["embedding"], validate=True) for it in told["data"]]
            if len(rows) != len(asked):
                raise Malformed(f"the gateway sent {len(rows)} vectors for {len(asked)} texts")
            return Embedded(vectors=vectors_of(rows), **told["x_baton"])

    async def rerank(
        self,
        model: str,
        query: str,
        texts: Sequence[str],
        *,
        top_n: int | None = None,
        deadline_s: float | None = None,
        verdicts: str | None = None,
    ) -> Reranked:
        """The texts by how well they answer a query, the best first; `top_n` of them."""
        wait_s = self._wait_s(deadline_s)
        body = {"model": model, "query": query, "documents": list(texts), "top_n": top_n}
        body["return_documents"] = False
        terms = terms_of(wait_s, verdicts)
        told = await self._json(json_call("/v1/rerank", body, wait_s, headers=terms))
        with _as_promised():
            results = [(int(it["index"]), float(it["relevance_score"])) for it in told["results"]]
            if not all(0 <= place < len(texts) for place, _ in results):
                raise Malformed("the gateway sent a place of no text")
            places, scores = (tuple(it) for it in zip(*results, strict=True))
            return Reranked(places=places, scores=scores, **told["x_baton"])

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        deadline_s: float | None = None,
        verdicts: str | None = None,
    ) -> Inferred:
        """Call a model that is a function: named arrays in, named arrays out."""
        wait_s = self._wait_s(deadline_s)
        headers = {"content-type": TENSORS_TYPE, "accept": TENSORS_TYPE}
        call = HttpCall(
            method="POST",
            path=str(httpx.URL("/v1/infer", params={"model": model})),
            deadline_s=wait_s,
            content=to_safetensors(inputs),
            headers=headers | terms_of(wait_s, verdicts),
        )
        data, told = await self._line.fetch(call)
        outputs = from_safetensors(data)
        return Inferred(
            outputs=outputs,
            task=told.get("x-baton-task", ""),
            receipt=told.get("x-baton-receipt", ""),
        )

    async def submit(
        self,
        model: str,
        operation: str,
        data: bytes | str | Sequence[str],
        *,
        parameters: Mapping[str, bool | int | float | str] | None = None,
        deadline_s: float | None = None,
        verdicts: str | None = None,
    ) -> str:
        """Submit a task that goes on whether anybody waits for it or not; returns the task's id.

        `data` is the operation's input: a text, texts to embed, or a record of `wire` as bytes.
        """
        wait_s = self._wait_s(deadline_s)
        body: dict[str, Any] = {"model": model, "operation": operation}
        body["deadline_s"] = int(terms_of(wait_s, None)["x-baton-deadline"])
        match data:
            case str():
                body["text"] = data
            case bytes():
                body["input_base64"] = base64.b64encode(data).decode()
            case _:
                body["texts"] = list(data)
        if parameters is not None:
            body["parameters"] = dict(parameters)
        if verdicts is not None:
            body["verdicts"] = verdicts
        # A repeated request would be a second task.
        told = await self._json(json_call("/v1/tasks", body, wait_s, repeatable=False))
        with _as_promised():
            return str(told["id"])

    async def result(self, task: str, *, deadline_s: float | None = None) -> TaskResult:
        """A task's answer, once there is one; TaskFailed, Missing, TooSlow."""
        wait_s = self._wait_s(deadline_s)
        path = f"/v1/tasks/{_id(task)}"
        with within(anyio.current_time() + wait_s, f"task {task}"):
            while True:
                told = await self._json(HttpCall(method="GET", path=path, deadline_s=wait_s))
                if told.get("status") != "running":
                    return _result(told)
                await self._end_of(f"{path}/events", wait_s)
                await anyio.sleep(AGAIN_S)

    async def cancel(self, task: str) -> None:
        """Stop a running task; a task that has ended stays as it is."""
        call = HttpCall(method="DELETE", path=f"/v1/tasks/{_id(task)}", deadline_s=self._deadline_s)
        await self._json(call)

    async def models(self, *, deadline_s: float | None = None) -> list[ModelInfo]:
        """The models that are on offer now."""
        told = await self._get("/v1/models", deadline_s)
        with _as_promised():
            return [
                ModelInfo(name=it["id"], id=it["x_baton"]["model"], peers=it["x_baton"]["peers"])
                for it in told["data"]
            ]

    async def receipt(self, receipt: str, *, deadline_s: float | None = None) -> ReceiptInfo:
        """An answer's receipt: who did what, and the file that proves it."""
        told = await self._get(f"/v1/receipts/{_id(receipt)}", deadline_s)
        with _as_promised():
            return ReceiptInfo(
                receipt=told["id"],
                task=told["task"],
                verified=told["verified"],
                route=told["route"],
                verdicts=told["verdicts"],
                data=base64.b64decode(told["receipt_base64"], validate=True),
            )

    def _wait_s(self, deadline_s: float | None) -> float:
        wait_s = self._deadline_s if deadline_s is None else deadline_s
        if not wait_s > 0:
            raise InputError(f"{wait_s} s is not a possible deadline", todo="give deadline_s > 0")
        return wait_s

    def _pieces(
        self, path: str, body: dict[str, Any], deadline_s: float | None, verdicts: str | None
    ) -> Pieces:
        if body.get("n") not in (None, 1):
            raise InputError("a call gives one answer: n has to be 1", todo="make several calls")
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        wait_s = self._wait_s(deadline_s)
        return Pieces(self._line, json_call(path, body, wait_s, headers=terms_of(wait_s, verdicts)))

    async def _get(self, path: str, deadline_s: float | None) -> dict[str, Any]:
        return await self._json(
            HttpCall(method="GET", path=path, deadline_s=self._wait_s(deadline_s))
        )

    async def _json(self, call: HttpCall) -> dict[str, Any]:
        data, _ = await self._line.fetch(call)
        return read_json(data)

    async def _end_of(self, path: str, wait_s: float) -> None:
        """Wait until a task's events end, which is when the task ends."""
        call = HttpCall(method="GET", path=path, deadline_s=wait_s)
        body = await self._line.open(call, call.until_at_s)
        try:
            while await body.part() is not None:
                pass
        except Disconnected:
            # The caller asks for the task's result in any case.
            return
        finally:
            await body.aclose()


def _result(told: Mapping[str, Any]) -> TaskResult:
    with _as_promised():
        if told["status"] != "answered":
            raise TaskFailed(str(told["error"]["message"]))
        return TaskResult(
            task=told["id"],
            receipt=told["receipt"],
            output=base64.b64decode(told["output_base64"], validate=True),
            verified=told["verified"],
            route=told["route"],
            verdicts=told["verdicts"],
        )


@contextmanager
def _as_promised() -> Iterator[None]:
    """Malformed for an answer that differs from what the gateway's OpenAPI document promises."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise Malformed(f"the gateway's answer is not as promised: {error}") from error


def _id(text: str) -> str:
    """An id as a part of a path; InputError for text that would change the path."""
    if not text.isalnum():
        raise InputError(f"{text[:80]!r} is not an id", todo="give the id that came with an answer")
    return text


@asynccontextmanager
async def connect(
    address: str = ADDRESS_DEFAULT,
    *,
    key: str | None = None,
    deadline_s: float = DEADLINE_S_DEFAULT,
    retries: int = RETRIES_DEFAULT,
    pay_max: str | None = None,
    state: str | Path = STATE_DEFAULT,
) -> AsyncIterator[Net]:
    """The network behind a gateway. Nothing is sent before the first call.

    With `pay_max="0.5"` calls that cost something are paid, up to so many credits together, from
    the account of the peer that runs on the folder `state`.
    """
    try:
        url = httpx.URL(address.rstrip("/").removesuffix("/v1"))
    except httpx.InvalidURL as error:
        raise InputError(f"{address!r} is not an address: {error}", todo=ADDRESS_DEFAULT) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"{address!r} is not an address", todo=f"for example {ADDRESS_DEFAULT}")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=url,
        headers=headers,
        # Each call has a deadline over everything; connecting has a shorter one.
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        # A proxy from the environment cannot reach this machine's own addresses.
        trust_env=url.host not in LOOPBACK,
    ) as http:
        payments = None
        if pay_max is not None:
            payments = CallPayments(read_credits(pay_max), Path(state).expanduser())
        line = ResponseLine(http, retries, payments)
        try:
            yield Net(line, deadline_s)
        finally:
            await line.close_left()
