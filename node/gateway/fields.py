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
class FieldRefusal:
    """Why a field is not done, and the values of it that change nothing."""

    why: str
    harmless: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldTable:
    """The fields of one object that its class does not have."""

    ignored: frozenset[str] = frozenset()
    refused: Mapping[str, FieldRefusal] = field(default_factory=dict)


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


_NO_BEAMS = FieldRefusal("answers are drawn token by token, without beams", (1,))
_NO_SCHEMA_OF_OTHERS = FieldRefusal("give the schema as response_format of a chat")
_TEXT_ONLY = FieldRefusal("models here read and write text")
_NO_JUDGE = FieldRefusal("nobody judges what is said")
_GENERATING = FieldTable(
    ignored=_fields(
        "user metadata store service_tier safety_identifier prompt_cache_key prediction"
        " prompt_cache_retention prompt_cache_options request_id priority cache_salt"
        " guided_decoding_backend"
    ),
    refused={
        "best_of": _NO_BEAMS,
        "use_beam_search": FieldRefusal(
            "answers are drawn token by token, without beams", (False,)
        ),
        "length_penalty": FieldRefusal("it is for beams, which are not done", (1, 1.0)),
        "early_stopping": FieldRefusal("it is for beams, which are not done", (False,)),
        "stop_token_ids": FieldRefusal("give stop sequences as text in stop", ([],)),
        "include_stop_str_in_output": FieldRefusal("a stop sequence is never shown", (False,)),
        "skip_special_tokens": FieldRefusal("special tokens have no text here", (True,)),
        "spaces_between_special_tokens": FieldRefusal("special tokens have no text here", (True,)),
        "add_special_tokens": FieldRefusal("a model's own rule decides", (True,)),
        "truncate_prompt_tokens": FieldRefusal("a prompt is never cut"),
        "truncation": FieldRefusal("a prompt is never cut", ("disabled",)),
        "prompt_logprobs": FieldRefusal("ask for echo with logprobs at /v1/completions"),
        "return_tokens_as_token_ids": FieldRefusal("tokens are told as text and bytes", (False,)),
        "return_token_ids": FieldRefusal("tokens are told as text and bytes", (False,)),
        "allowed_token_ids": FieldRefusal("use logit_bias"),
        "bad_words": FieldRefusal("use logit_bias", ([],)),
        "logits_processors": FieldRefusal("no code of clients is run", ([],)),
        "guided_json": _NO_SCHEMA_OF_OTHERS,
        "guided_regex": _NO_SCHEMA_OF_OTHERS,
        "guided_choice": _NO_SCHEMA_OF_OTHERS,
        "guided_grammar": _NO_SCHEMA_OF_OTHERS,
        "guided_whitespace_pattern": _NO_SCHEMA_OF_OTHERS,
        "structured_outputs": _NO_SCHEMA_OF_OTHERS,
        "grammar": _NO_SCHEMA_OF_OTHERS,
        "json_schema": _NO_SCHEMA_OF_OTHERS,
        "repeat_penalty": FieldRefusal("it is called repetition_penalty here", (1, 1.0)),
        "typical_p": FieldRefusal("the sampler does not do it", (1, 1.0)),
        "tfs_z": FieldRefusal("the sampler does not do it", (1, 1.0)),
        "mirostat": FieldRefusal("the sampler does not do it", (0,)),
        "mirostat_tau": FieldRefusal("the sampler does not do it"),
        "mirostat_eta": FieldRefusal("the sampler does not do it"),
        "n_predict": FieldRefusal("it is called max_tokens here"),
        "lora": FieldRefusal("a model is what its content id names"),
    },
)


def _with(table: FieldTable, ignored: str = "", **refused: FieldRefusal) -> FieldTable:
    return FieldTable(table.ignored | _fields(ignored), {**table.refused, **refused})


_OLLAMA = {
    "think": FieldRefusal("a model thinks as its template has it", (False,)),
    "logprobs": FieldRefusal("/v1/chat/completions tells them", (False,)),
    "top_logprobs": FieldRefusal("/v1/chat/completions tells them", (0,)),
    "truncate": FieldRefusal("a conversation is never cut", (False,)),
    "shift": FieldRefusal("a conversation is never cut", (False,)),
}
# By the name of the request's class in `node.gateway.requests`, or of an object within it.
TABLE: Mapping[str, FieldTable] = {
    "ChatRequest": _with(
        _GENERATING,
        modalities=FieldRefusal("models here write text", (["text"],)),
        audio=_TEXT_ONLY,
        moderation=_NO_JUDGE,
        web_search_options=FieldRefusal("nothing is looked up on the web"),
        verbosity=FieldRefusal("no model here knows it", ("medium",)),
        reasoning_effort=FieldRefusal("give what the template knows in chat_template_kwargs"),
        reasoning=FieldRefusal("give what the template knows in chat_template_kwargs"),
        thinking=FieldRefusal("give what the template knows in chat_template_kwargs"),
        echo=FieldRefusal("only /v1/completions gives the prompt back", (False,)),
        suffix=FieldRefusal("models here go on from the beginning alone", ("",)),
        prompt=FieldRefusal("a chat has messages; /v1/completions takes a prompt"),
        chat_template=FieldRefusal("a model's own template is used"),
        add_generation_prompt=FieldRefusal("the model answers next", (True,)),
        continue_final_message=FieldRefusal("use /v1/completions to go on from a text", (False,)),
        documents=FieldRefusal("put them into the messages", ([],)),
    ),
    "CompletionRequest": _with(
        _GENERATING,
        suffix=FieldRefusal("models here go on from the beginning alone", ("",)),
        response_format=FieldRefusal(
            "only chats have a response_format: /v1/chat/completions", ({"type": "text"},)
        ),
        messages=FieldRefusal("/v1/chat/completions takes messages"),
        max_completion_tokens=FieldRefusal("it is called max_tokens here"),
        tools=FieldRefusal("only chats have tools", ([],)),
        tool_choice=FieldRefusal("only chats have tools", ("none", "auto")),
        top_logprobs=FieldRefusal("logprobs is how many alternatives are told here"),
    ),
    "StreamOptions": FieldTable(
        ignored=_fields("include_obfuscation"),
        refused={"continuous_usage_stats": FieldRefusal("usage comes at the end", (False,))},
    ),
    "ChatMessage": FieldTable(
        ignored=_fields(
            "refusal annotations reasoning reasoning_content reasoning_details parsed id status"
            " provider_specific_fields cache_control x_baton"
        ),
        refused={"audio": _TEXT_ONLY, "prefix": FieldRefusal("use /v1/completions", (False,))},
    ),
    "TextPart": FieldTable(ignored=_fields("cache_control annotations")),
    "Called": FieldTable(ignored=_fields("index provider_specific_fields cache_control")),
    "Tool": FieldTable(ignored=_fields("cache_control")),
    "MessagesRequest": FieldTable(
        ignored=_fields(
            "metadata service_tier cache_control inference_geo user_profile_id workspace_id"
        ),
        refused={
            "speed": FieldRefusal("an answer comes as fast as it can", ("standard",)),
            "diagnostics": FieldRefusal("the receipt tells what was done"),
            "thinking": FieldRefusal(
                "a model thinks as its template has it", ({"type": "disabled"},)
            ),
            "container": FieldRefusal("no code is run"),
            "mcp_servers": FieldRefusal("no server is asked", ([],)),
            "context_management": FieldRefusal("a conversation is taken as it is"),
        },
    ),
    "OutputConfig": FieldTable(
        refused={"effort": FieldRefusal("no model here is told how hard to think")}
    ),
    "CountTokensRequest": FieldTable(
        ignored=_fields("cache_control"),
        refused={
            "thinking": FieldRefusal(
                "a model thinks as its template has it", ({"type": "disabled"},)
            ),
            "mcp_servers": FieldRefusal("no server is asked", ([],)),
            "context_management": FieldRefusal("a conversation is taken as it is"),
        },
    ),
    "ToolUse": FieldTable(ignored=_fields("cache_control caller")),
    "ToolResult": FieldTable(ignored=_fields("cache_control")),
    "AnthropicTool": FieldTable(ignored=_fields("cache_control strict")),
    "ResponsesRequest": FieldTable(
        ignored=_fields(
            "user service_tier safety_identifier prompt_cache_key prompt_cache_retention"
            " prompt_cache_options stream_options"
        ),
        refused={
            "reasoning": FieldRefusal("no model here is told how to think", ({},)),
            # No model here makes reasoning, so that none is left out.
            "include": FieldRefusal(
                "nothing more is told of an answer", ([], ["reasoning.encrypted_content"])
            ),
            "moderation": _NO_JUDGE,
            "image": _TEXT_ONLY,
            "context_management": FieldRefusal("a conversation is taken as it is", ([],)),
            "truncation": FieldRefusal("a conversation is never cut", ("disabled",)),
            "background": FieldRefusal("use /v1/tasks to ask without waiting", (False,)),
            "conversation": FieldRefusal("use previous_response_id"),
            "prompt": FieldRefusal("there are no stored prompts here"),
            "max_tool_calls": FieldRefusal("clients run their tools themselves"),
            "top_logprobs": FieldRefusal("/v1/chat/completions tells them", (0,)),
        },
    ),
    "TextOptions": FieldTable(
        refused={"verbosity": FieldRefusal("no model knows it", ("medium",))}
    ),
    "SchemaFormat": FieldTable(ignored=_fields("description")),
    "JsonSchema": FieldTable(ignored=_fields("description")),
    "InputMessage": FieldTable(ignored=_fields("id status phase")),
    "InputText": FieldTable(ignored=_fields("annotations logprobs")),
    "FunctionCallInput": FieldTable(ignored=_fields("id status namespace caller")),
    "FunctionCallOutput": FieldTable(ignored=_fields("id status caller")),
    "OllamaChatRequest": FieldTable(ignored=_fields("keep_alive"), refused=_OLLAMA),
    "OllamaGenerateRequest": FieldTable(
        ignored=_fields("keep_alive"),
        refused={
            **_OLLAMA,
            "suffix": FieldRefusal("models here go on from the beginning alone", ("",)),
            "template": FieldRefusal("a model's own template is used", ("",)),
            "context": FieldRefusal("send the conversation to /api/chat", ([],)),
            "images": FieldRefusal("models here read text", ([],)),
        },
    ),
    "OllamaMessage": FieldTable(
        ignored=_fields("thinking tool_call_id"),
        refused={"images": FieldRefusal("models here read text", ([],))},
    ),
    "OllamaCall": FieldTable(ignored=_fields("id type")),
    "OllamaFunction": FieldTable(ignored=_fields("index description")),
    "OllamaOptions": FieldTable(
        ignored=_fields(
            "num_ctx num_batch num_gpu main_gpu use_mmap use_mlock num_thread num_keep numa"
            " low_vram f16_kv vocab_only"
        ),
        refused={
            "repeat_last_n": FieldRefusal("a penalty is for all of the prompt and answer", (-1,)),
            "typical_p": FieldRefusal("the sampler does not do it", (1, 1.0)),
            "tfs_z": FieldRefusal("the sampler does not do it", (1, 1.0)),
            "mirostat": FieldRefusal("the sampler does not do it", (0,)),
            "mirostat_tau": FieldRefusal("the sampler does not do it"),
            "mirostat_eta": FieldRefusal("the sampler does not do it"),
            "penalize_newline": FieldRefusal("the sampler does not do it", (True,)),
        },
    ),
    "OllamaEmbedRequest": FieldTable(ignored=_fields("keep_alive options")),
    "OllamaEmbeddingsRequest": FieldTable(ignored=_fields("keep_alive options")),
    "OllamaShowRequest": FieldTable(ignored=_fields("verbose")),
    "RerankRequest": FieldTable(
        ignored=_fields("user priority"),
        refused={
            "max_chunks_per_doc": FieldRefusal("a document is one text"),
            "max_tokens_per_doc": FieldRefusal("a text is cut only where its model ends"),
            "rank_fields": _TEXT_ONLY,
        },
    ),
    "ScoreRequest": FieldTable(ignored=_fields("user encoding_format")),
    "TokenizeRequest": FieldTable(
        refused={
            "add_special_tokens": FieldRefusal("a model's own rule decides", (True,)),
            "add_generation_prompt": FieldRefusal("the model answers next", (True,)),
            "continue_final_message": FieldRefusal("give the text as prompt", (False,)),
        }
    ),
    "EmbeddingsRequest": FieldTable(
        ignored=_fields("user metadata priority request_id"),
        refused={
            "truncate_prompt_tokens": FieldRefusal("a text is cut only where its model ends"),
            "input_type": FieldRefusal("write what the model wants before the text"),
            "instruction": FieldRefusal("write what the model wants before the text"),
            "prompt_name": FieldRefusal("write what the model wants before the text"),
            "normalize": FieldRefusal("vectors have the length one", (True,)),
            "add_special_tokens": FieldRefusal("a model's own rule decides", (True,)),
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
