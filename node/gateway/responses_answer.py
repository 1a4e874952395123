"""A chat's completion or its chunks as a response of `/v1/responses`: whole, or as events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from node.gateway.dialects import finish_of, named_event
from node.gateway.errors import ErrorDetail
from node.gateway.response_memory import KeptResponse, ResponseMemory
from node.gateway.responses_request import ResponsesRequest, items_of


def _id_of(completion: Mapping[str, Any], prefix: str) -> str:
    return f"{prefix}_{str(completion['id']).partition('-')[2]}"


def _message_item(completion: Mapping[str, Any], text: str, status: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": _id_of(completion, "msg"),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part] if status != "in_progress" else [],
    }


def _call_item(call: Mapping[str, Any], status: str) -> dict[str, Any]:
    function = call["function"]
    return {
        "id": f"fc_{call['id']}",
        "type": "function_call",
        "status": status,
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"] if status != "in_progress" else "",
    }


def response_map(
    asked: ResponsesRequest, completion: Mapping[str, Any], output: list[dict[str, Any]]
) -> dict[str, Any]:
    """A response as clients know it: `completion` is a completion, or the last chunk of one."""
    usage = completion.get("usage")
    told = asked.model_dump(by_alias=True, exclude_none=True)
    reason = finish_of(completion)
    return {
        "id": _id_of(completion, "resp"),
        "object": "response",
        "created_at": completion["created"],
        "status": "incomplete" if reason == "length" else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if reason == "length" else None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": completion["model"],
        "output": output,
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "store": asked.store is not False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": told.get("text") or {"format": {"type": "text"}},
        "tool_choice": told.get("tool_choice", "auto"),
        "tools": told.get("tools", []),
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "disabled",
        "usage": None if usage is None else _usage(usage),
        "x_baton": completion.get("x_baton"),
    }


def _usage(usage: Mapping[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def output_of(completion: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items that a completion comes to."""
    choice = completion["choices"][0]
    said, cut = choice["message"], choice["finish_reason"] == "length"
    status = "incomplete" if cut else "completed"
    found = []
    if said["content"] or not said.get("tool_calls"):
        found.append(_message_item(completion, said["content"] or "", status))
    return [*found, *(_call_item(it, status) for it in said.get("tool_calls", ()))]


def said_of(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a response's output adds to a conversation."""
    text = "".join(it["content"][0]["text"] for it in output if it["type"] == "message")
    calls = [
        {
            "id": it["call_id"],
            "type": "function",
            "function": {"name": it["name"], "arguments": it["arguments"]},
        }
        for it in output
        if it["type"] == "function_call"
    ]
    return [{"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})]


@dataclass(slots=True)
class ResponsesFraming:
    """Chunks of a chat as the events of a response: a pure core, but for who keeps the last."""

    asked: ResponsesRequest
    memory: ResponseMemory
    owner: str
    messages: list[dict[str, Any]]
    media_type: str = "text/event-stream; charset=utf-8"
    _number: int = 0
    _text: str = ""
    _message: dict[str, Any] | None = None
    _output: list[dict[str, Any]] = field(default_factory=list)
    _ended: dict[str, Any] = field(default_factory=dict)

    def piece(self, chunk: dict[str, Any]) -> bytes:
        """One chunk as the events that it is."""
        return b"".join(self._events(chunk))

    def _events(self, chunk: dict[str, Any]) -> Iterator[bytes]:
        if not self._number:
            told = response_map(self.asked, chunk, []) | {"status": "in_progress"}
            yield self._event("response.created", {"response": told})
            yield self._event("response.in_progress", {"response": told})
        delta = chunk["choices"][0]["delta"]
        if text := delta.get("content"):
            if self._message is None:
                yield from self._open_message(chunk)
            self._text += text
            yield self._event("response.output_text.delta", self._place({"delta": text}))
        reason = finish_of(chunk)
        calls = delta.get("tool_calls", ())
        if (calls or reason is not None) and self._message is not None:
            status = "incomplete" if reason == "length" else "completed"
            yield from self._close_message(chunk, status)
        for call in calls:
            yield from self._call(call)
        if reason is not None:
            self._ended = chunk
            if not self._output:
                yield from self._open_message(chunk)
                yield from self._close_message(chunk, "completed")

    def last(self, usage: dict[str, Any]) -> bytes:
        whole = {**self._ended, "usage": usage["usage"], "x_baton": usage["x_baton"]}
        told = response_map(self.asked, whole, self._output)
        self.keep(told)
        return self._event(f"response.{told['status']}", {"response": told})

    def keep(self, told: dict[str, Any]) -> None:
        """Keep a response that has ended, unless it was asked not to be."""
        if self.asked.store is not False:
            messages = [*self.messages, *said_of(told["output"])]
            kept = KeptResponse(messages, told, items_of(self.asked, told["id"]))
            self.memory.keep_whole(self.owner, told["id"], kept)

    def fault(self, detail: ErrorDetail) -> bytes:
        error = detail.body["error"]
        told = {"code": error["code"], "message": error["message"], "param": error["param"]}
        return self._event("error", told)

    def _open_message(self, chunk: Mapping[str, Any]) -> Iterator[bytes]:
        self._message = _message_item(chunk, "", "in_progress")
        told = {"output_index": len(self._output), "item": self._message}
        yield self._event("response.output_item.added", told)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", self._place({"part": part}))

    def _close_message(self, chunk: Mapping[str, Any], status: str) -> Iterator[bytes]:
        item = _message_item(chunk, self._text, status)
        part = item["content"][0]
        yield self._event("response.output_text.done", self._place({"text": self._text}))
        yield self._event("response.content_part.done", self._place({"part": part}))
        told = {"output_index": len(self._output), "item": item}
        yield self._event("response.output_item.done", told)
        self._output.append(item)
        self._message = None

    def _call(self, call: Mapping[str, Any]) -> Iterator[bytes]:
        item, index = _call_item(call, "completed"), len(self._output)
        told = {"output_index": index, "item": _call_item(call, "in_progress")}
        yield self._event("response.output_item.added", told)
        place = {"item_id": item["id"], "output_index": index}
        yield self._event(
            "response.function_call_arguments.delta", place | {"delta": item["arguments"]}
        )
        yield self._event(
            "response.function_call_arguments.done",
            place | {"arguments": item["arguments"], "name": item["name"]},
        )
        yield self._event("response.output_item.done", {"output_index": index, "item": item})
        self._output.append(item)

    def _place(self, more: dict[str, Any]) -> dict[str, Any]:
        assert self._message is not None
        place = {"item_id": self._message["id"], "output_index": len(self._output)}
        return place | {"content_index": 0, "logprobs": []} | more

    def _event(self, kind: str, told: dict[str, Any]) -> bytes:
        event = {"type": kind, "sequence_number": self._number} | told
        self._number += 1
        return named_event(kind, event)
