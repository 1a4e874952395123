"""What becomes of every field that a client may send: one table for all endpoints. A pure core.

A field is done if the request's class has it. Every other name is here, or is unknown: those that
cannot change an answer are let go, those that would change it and cannot be done are refused by
name, but for values that ask for nothing. `null` asks for nothing anywhere.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

NAME_CHARACTERS_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is not done, and the values of it that change nothing."""

    why: str
    harmless: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldTable:
    """The fields of one object that its class does not have."""

    ignored: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


_NO_BEAMS = Refusal("answers are drawn token by token, without beams", (1,))
_NO_SCHEMA_OF_OTHERS = Refusal("give the schema as response_format of a chat")
_TEXT_ONLY = Refusal("models here read and write text")
_GENERATING = FieldTable(
    ignored=_fields(
        "user metadata store service_tier safety_identifier prompt_cache_key prediction"
        " prompt_cache_retention request_id priority cache_salt guided_decoding_backend"
    ),
    refused={
        "best_of": _NO_BEAMS,
        "use_beam_search": Refusal("answers are drawn token by token, without beams", (False,)),
        "length_penalty": Refusal("it is for beams, which are not done", (1, 1.0)),
        "early_stopping": Refusal("it is for beams, which are not done", (False,)),
        "stop_token_ids": Refusal("give stop sequences as text in stop", ([],)),
        "include_stop_str_in_output": Refusal("a stop sequence is never shown", (False,)),
        "skip_special_tokens": Refusal("special tokens have no text here", (True,)),
        "spaces_between_special_tokens": Refusal("special tokens have no text here", (True,)),
        "add_special_tokens": Refusal("a model's own rule decides", (True,)),
        "truncate_prompt_tokens": Refusal("a prompt is never cut"),
        "truncation": Refusal("a prompt is never cut", ("disabled",)),
        "prompt_logprobs": Refusal("ask for echo with logprobs at /v1/completions"),
        "return_tokens_as_token_ids": Refusal("tokens are told as text and bytes", (False,)),
        "return_token_ids": Refusal("tokens are told as text and bytes", (False,)),
        "allowed_token_ids": Refusal("use logit_bias"),
        "bad_words": Refusal("use logit_bias", ([],)),
        "logits_processors": Refusal("no code of clients is run", ([],)),
        "guided_json": _NO_SCHEMA_OF_OTHERS,
        "guided_regex": _NO_SCHEMA_OF_OTHERS,
        "guided_choice": _NO_SCHEMA_OF_OTHERS,
        "guided_grammar": _NO_SCHEMA_OF_OTHERS,
        "guided_whitespace_pattern": _NO_SCHEMA_OF_OTHERS,
        "structured_outputs": _NO_SCHEMA_OF_OTHERS,
        "grammar": _NO_SCHEMA_OF_OTHERS,
        "json_schema": _NO_SCHEMA_OF_OTHERS,
        "repeat_penalty": Refusal("it is called repetition_penalty here", (1, 1.0)),
        "typical_p": Refusal("the sampler does not do it", (1, 1.0)),
        "tfs_z": Refusal("the sampler does not do it", (1, 1.0)),
        "mirostat": Refusal("the sampler does not do it", (0,)),
        "mirostat_tau": Refusal("the sampler does not do it"),
        "mirostat_eta": Refusal("the sampler does not do it"),
        "n_predict": Refusal("it is called max_tokens here"),
        "lora": Refusal("a model is what its content id names"),
    },
)


def _with(table: FieldTable, ignored: str = "", **refused: Refusal) -> FieldTable:
    return FieldTable(table.ignored | _fields(ignored), {**table.refused, **refused})


_OLLAMA = {
    "think": Refusal("a model thinks as its template has it", (False,)),
    "logprobs": Refusal("/v1/chat/completions tells them", (False,)),
    "top_logprobs": Refusal("/v1/chat/completions tells them", (0,)),
    "truncate": Refusal("a conversation is never cut", (False,)),
    "shift": Refusal("a conversation is never cut", (False,)),
}
# By the name of the request's class in `node.gateway.requests`, or of an object within it.
TABLE: Mapping[str, FieldTable] = {
    "ChatRequest": _with(
        _GENERATING,
        modalities=Refusal("models here write text", (["text"],)),
        audio=_TEXT_ONLY,
        web_search_options=Refusal("nothing is looked up on the web"),
        verbosity=Refusal("no model here knows it", ("medium",)),
        reasoning_effort=Refusal("give what the template knows in chat_template_kwargs"),
        reasoning=Refusal("give what the template knows in chat_template_kwargs"),
        thinking=Refusal("give what the template knows in chat_template_kwargs"),
        echo=Refusal("only /v1/completions gives the prompt back", (False,)),
        suffix=Refusal("models here go on from the beginning alone", ("",)),
        prompt=Refusal("a chat has messages; /v1/completions takes a prompt"),
        chat_template=Refusal("a model's own template is used"),
        add_generation_prompt=Refusal("the model answers next", (True,)),
        continue_final_message=Refusal("use /v1/completions to go on from a text", (False,)),
        documents=Refusal("put them into the messages", ([],)),
    ),
    "CompletionRequest": _with(
        _GENERATING,
        suffix=Refusal("models here go on from the beginning alone", ("",)),
        response_format=Refusal(
            "only chats have a response_format: /v1/chat/completions", ({"type": "text"},)
        ),
        messages=Refusal("/v1/chat/completions takes messages"),
        max_completion_tokens=Refusal("it is called max_tokens here"),
        tools=Refusal("only chats have tools", ([],)),
        tool_choice=Refusal("only chats have tools", ("none", "auto")),
        top_logprobs=Refusal("logprobs is how many alternatives are told here"),
    ),
    "StreamOptions": FieldTable(
        ignored=_fields("include_obfuscation"),
        refused={"continuous_usage_stats": Refusal("usage comes at the end", (False,))},
    ),
    "ChatMessage": FieldTable(
        ignored=_fields(
            "refusal annotations reasoning reasoning_content reasoning_details parsed id status"
            " provider_specific_fields cache_control x_baton"
        ),
        refused={"audio": _TEXT_ONLY, "prefix": Refusal("use /v1/completions", (False,))},
    ),
    "TextPart": FieldTable(ignored=_fields("cache_control annotations")),
    "Called": FieldTable(ignored=_fields("index provider_specific_fields cache_control")),
    "Tool": FieldTable(ignored=_fields("cache_control")),
    "MessagesRequest": FieldTable(
        ignored=_fields("metadata service_tier"),
        refused={
            "thinking": Refusal("a model thinks as its template has it", ({"type": "disabled"},)),
            "container": Refusal("no code is run"),
            "mcp_servers": Refusal("no server is asked", ([],)),
            "context_management": Refusal("a conversation is taken as it is"),
            "output_format": Refusal("ask /v1/chat/completions for a response_format"),
            "output_config": Refusal("ask /v1/chat/completions for a response_format"),
        },
    ),
    "CountTokensRequest": FieldTable(
        refused={"thinking": Refusal("a model thinks as its template has it")}
    ),
    "ToolUse": FieldTable(ignored=_fields("cache_control caller")),
    "ToolResult": FieldTable(ignored=_fields("cache_control")),
    "AnthropicTool": FieldTable(ignored=_fields("cache_control strict")),
    "ResponsesRequest": FieldTable(
        ignored=_fields(
            "user metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention"
            " stream_options"
        ),
        refused={
            "reasoning": Refusal("no model here is told how to think", ({},)),
            "include": Refusal("nothing more is told of an answer", ([],)),
            "truncation": Refusal("a conversation is never cut", ("disabled",)),
            "background": Refusal("use /v1/tasks to ask without waiting", (False,)),
            "conversation": Refusal("use previous_response_id"),
            "prompt": Refusal("there are no stored prompts here"),
            "max_tool_calls": Refusal("clients run their tools themselves"),
            "top_logprobs": Refusal("/v1/chat/completions tells them", (0,)),
        },
    ),
    "TextOptions": FieldTable(refused={"verbosity": Refusal("no model knows it", ("medium",))}),
    "SchemaFormat": FieldTable(ignored=_fields("description")),
    "JsonSchema": FieldTable(ignored=_fields("description")),
    "InputMessage": FieldTable(ignored=_fields("id status phase")),
    "InputText": FieldTable(ignored=_fields("annotations logprobs")),
    "FunctionCallInput": FieldTable(ignored=_fields("id status namespace")),
    "FunctionCallOutput": FieldTable(ignored=_fields("id status")),
    "OllamaChatRequest": FieldTable(ignored=_fields("keep_alive"), refused=_OLLAMA),
    "OllamaGenerateRequest": FieldTable(
        ignored=_fields("keep_alive"),
        refused={
            **_OLLAMA,
            "suffix": Refusal("models here go on from the beginning alone", ("",)),
            "template": Refusal("a model's own template is used", ("",)),
            "context": Refusal("send the conversation to /api/chat", ([],)),
            "images": Refusal("models here read text", ([],)),
        },
    ),
    "OllamaMessage": FieldTable(
        ignored=_fields("thinking tool_call_id"),
        refused={"images": Refusal("models here read text", ([],))},
    ),
    "OllamaOptions": FieldTable(
        ignored=_fields(
            "num_ctx num_batch num_gpu main_gpu use_mmap use_mlock num_thread num_keep numa"
            " low_vram f16_kv vocab_only"
        ),
        refused={
            "repeat_last_n": Refusal("a penalty is for all of the prompt and answer", (-1,)),
            "typical_p": Refusal("the sampler does not do it", (1, 1.0)),
            "tfs_z": Refusal("the sampler does not do it", (1, 1.0)),
            "mirostat": Refusal("the sampler does not do it", (0,)),
            "mirostat_tau": Refusal("the sampler does not do it"),
            "mirostat_eta": Refusal("the sampler does not do it"),
            "penalize_newline": Refusal("the sampler does not do it", (True,)),
        },
    ),
    "OllamaEmbedRequest": FieldTable(ignored=_fields("keep_alive options")),
    "OllamaShowRequest": FieldTable(ignored=_fields("verbose name")),
    "RerankRequest": FieldTable(
        ignored=_fields("user"),
        refused={
            "max_chunks_per_doc": Refusal("a document is one text"),
            "rank_fields": _TEXT_ONLY,
        },
    ),
    "ScoreRequest": FieldTable(ignored=_fields("user encoding_format")),
    "TokenizeRequest": FieldTable(
        refused={
            "add_special_tokens": Refusal("a model's own rule decides", (True,)),
            "add_generation_prompt": Refusal("the model answers next", (True,)),
            "continue_final_message": Refusal("give the text as prompt", (False,)),
        }
    ),
    "EmbeddingsRequest": FieldTable(
        ignored=_fields("user metadata priority request_id"),
        refused={
            "truncate_prompt_tokens": Refusal("a text is cut only where its model ends"),
            "input_type": Refusal("write what the model wants before the text"),
            "instruction": Refusal("write what the model wants before the text"),
            "prompt_name": Refusal("write what the model wants before the text"),
            "normalize": Refusal("vectors have the length one", (True,)),
            "add_special_tokens": Refusal("a model's own rule decides", (True,)),
        },
    ),
}
_NOTHING = FieldTable()


def table_of(kind: str) -> FieldTable:
    """The fields of an object of this class that are not done."""
    return TABLE.get(kind, _NOTHING)


def fault_of_field(kind: str, done: Collection[str], name: str, value: Any) -> str | None:
    """What is wrong with a field's being there, in words; None if nothing is."""
    table = table_of(kind)
    if name in done or name in table.ignored:
        return None
    if (refusal := table.refused.get(name)) is not None:
        if value is None or any(_equal(value, it) for it in refusal.harmless):
            return None
        return f"{name} is not done here: {refusal.why}"
    near = get_close_matches(name, [*done, *table.ignored, *table.refused], n=1, cutoff=0.6)
    hint = f": did you mean {near[0]}?" if near else ""
    return f"there is no field {name[:NAME_CHARACTERS_SHOWN]!r} here{hint}"


def _equal(value: Any, harmless: Any) -> bool:
    return type(value) is type(harmless) and bool(value == harmless)
