"""What a command asks of a model, in the form that the model takes. A pure core."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from wire import limits
from wire.content import ContentId
from wire.errors import InputError, WireError
from wire.generation import Generation
from wire.operations import EMBED, GENERATE, NEAREST, RERANK
from wire.payload import QueryText, Question, Texts
from wire.schema import Scalar

# What is generated at most where nobody says how much.
TOKENS_DEFAULT = 1024
MESSAGES_MAX = 4096
ROLES = ("system", "user", "assistant", "tool")
# The settings of a generation that a person may give, and the type of each.
SETTINGS: Mapping[str, type] = {"tokens": int, "temperature": float, "seed": int}


def operation_of(arguments: Mapping[str, Any], operations: Sequence[str]) -> str:
    """What the model is to do: as asked, else what the input is for, else the one thing it does.

    `operations` are the model's own; none where nobody has said yet what the model is.
    """
    if named := arguments.get("operation"):
        return str(named)
    if arguments.get("index"):
        return NEAREST
    if arguments.get("documents"):
        return RERANK
    if any(arguments.get(it) for it in ("messages", "system", "schema")):
        return GENERATE
    if len(operations) == 1:
        return operations[0]
    return GENERATE if EMBED not in operations and GENERATE in operations else EMBED


def check_text(text: str, size_bytes_max: int) -> str:
    """The text as it is; InputError if it is longer than what is taken, in bytes of UTF-8."""
    if (size_bytes := len(text.encode())) > size_bytes_max:
        raise InputError(
            f"the text has {size_bytes} bytes, at most {size_bytes_max} are taken",
            todo="cut it, or bring it in as files: join --role data --files PATH",
        )
    return text


def search_input(text: str, index: ContentId, count: int) -> bytes:
    """A question to find passages with."""
    check_text(text, limits.TEXT_BYTES_MAX)
    return Question(text=text, index=index, count=count).to_bytes()


def embed_input(text: str) -> bytes:
    """One text to embed."""
    return Texts(texts=(check_text(text, limits.TEXT_BYTES_MAX),)).to_bytes()


def rerank_input(query: str, documents: object) -> bytes:
    """Each document together with the query; InputError."""
    if not isinstance(documents, list) or not all(isinstance(it, str) for it in documents):
        raise InputError("the documents are not a list of texts", todo="give texts: --document")
    if not 1 <= len(documents) <= limits.PASSAGES_MAX:
        raise InputError(
            f"{len(documents)} documents are given, 1 to {limits.PASSAGES_MAX} are ranked",
            todo="give the texts that are to be ranked: --document",
        )
    pairs = [QueryText(query, it).to_text() for it in documents]
    return Texts(texts=tuple(check_text(it, limits.TEXT_BYTES_MAX) for it in pairs)).to_bytes()


def generate_input(arguments: Mapping[str, Any], *, chats: bool) -> bytes:
    """A conversation, or a text to go on from where the model does not chat; InputError."""
    schema = _schema(arguments.get("schema"))
    messages = _messages(arguments)
    prompt = ""
    if not chats:
        if len(messages) > 1:
            raise InputError(
                "this model has no template for conversations",
                todo="give it one text to go on from: --text",
            )
        prompt, messages = messages[0]["content"], []
    try:
        return Generation(
            prompt=prompt,
            messages=json.dumps(messages, ensure_ascii=False) if messages else "",
            tools="",
            schema=schema,
            stop=(),
        ).to_bytes()
    except WireError as error:
        raise InputError(
            f"the conversation is not taken: {error.message}",
            todo=f"it has at most {limits.PROMPT_BYTES_MAX} bytes",
        ) from error


# How the settings are typed.
_OPTIONS = {"tokens": "--max-tokens", "temperature": "--temperature", "seed": "--seed"}


def given_parameters(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters, if any were given; InputError if they are no map."""
    given = arguments.get("parameters") or {}
    if not isinstance(given, Mapping):
        raise InputError("the parameters are not a map", todo="for example {'tokens': 64}")
    return given


def check_no_settings(arguments: Mapping[str, Any]) -> None:
    """InputError if settings of a generation were given to what generates no words."""
    typed = [_OPTIONS.get(str(it), str(it)[:40]) for it in given_parameters(arguments)]
    if typed:
        raise InputError(
            f"{', '.join(typed)}: this model generates no words, so that means nothing to it",
            todo="leave it out, or ask a language model: python -m node models",
        )


def generate_parameters(arguments: Mapping[str, Any]) -> dict[str, Scalar]:
    """The settings of a generation, of the right types; InputError names one that is not."""
    given = given_parameters(arguments)
    found: dict[str, Scalar] = {"tokens": TOKENS_DEFAULT}
    for name, typed in given.items():
        wanted = SETTINGS.get(name)
        value = float(typed) if wanted is float and type(typed) is int else typed
        if wanted is None or type(value) is not wanted:
            raise InputError(
                f"{str(name)[:40]!r} is not a setting, or its value is not of the right type",
                todo=f"settings are {', '.join(SETTINGS)}",
            )
        assert isinstance(value, int | float)
        found[name] = value
    if found.get("temperature") == 0.0:
        # Without chance no seed matters, and equal questions are one job.
        found["seed"] = 0
    return found


def _messages(arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    given = arguments.get("messages") or []
    if not isinstance(given, list) or len(given) > MESSAGES_MAX:
        raise InputError(f"the messages are not a list of at most {MESSAGES_MAX}", todo=_FORM)
    found = [_message(it) for it in given]
    if (system := arguments.get("system")) is not None:
        found.insert(0, {"role": "system", "content": str(system)})
    if text := arguments.get("text"):
        found.append({"role": "user", "content": str(text)})
    if not any(it["role"] != "system" for it in found):
        raise InputError("nothing is asked", todo="give a text: --text, --file or --messages")
    return found


def _message(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping) or not {"role", "content"} == given.keys():
        raise InputError("a message has a role and a content, and nothing else", todo=_FORM)
    role, content = given["role"], given["content"]
    if role not in ROLES or not isinstance(content, str):
        raise InputError("a message's role or content is not what models take", todo=_FORM)
    return {"role": role, "content": content}


_FORM = 'for example [{"role": "user", "content": "hello"}]; roles are ' + ", ".join(ROLES)


def _schema(given: Any) -> str:
    if given is None:
        return ""
    try:
        found = json.loads(str(given))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the schema is not JSON: {error}", todo="give a JSON schema") from error
    if not isinstance(found, dict):
        raise InputError("the schema is not a JSON object", todo="give a JSON schema")
    return json.dumps(found)
