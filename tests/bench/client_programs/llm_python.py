"""`llm`, the command line and library, with the gateway's models in its configuration."""

import json
import os
import tempfile
from pathlib import Path

from cells import MODEL, URL, cell, raises, tell

FOLDER = Path(tempfile.mkdtemp(prefix="baton-llm-"))
os.environ["LLM_USER_PATH"] = str(FOLDER)
os.environ["OPENAI_API_KEY"] = "none"
ROW = {"model_id": "m", "model_name": MODEL, "api_base": f"{URL}/v1"}
ABLE = {"supports_tools": True, "supports_schema": True}
ROWS = [
    ROW | ABLE,
    ROW | {"model_id": "plain", "completion": True},
    ROW | {"model_id": "missing", "model_name": "none-such"},
]
# What is JSON is YAML.
(FOLDER / "extra-openai-models.yaml").write_text(json.dumps(ROWS))

import llm  # noqa: E402  it reads its configuration's place first

model = llm.get_model("m")
FEW = {"temperature": 0, "max_tokens": 12}


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@cell("chat")
def _() -> None:
    talk = model.conversation()
    assert talk.prompt("Name a colour.", system="Be brief.", stream=False, **FEW).text()
    assert talk.prompt("Another one.", stream=False, **FEW).text()


@cell("stream")
def _() -> None:
    whole = model.prompt("Say hello.", stream=False, **FEW).text()
    assert "".join(model.prompt("Say hello.", stream=True, **FEW)) == whole


@cell("usage")
def _() -> None:
    whole = model.prompt("Say hello.", stream=False, **FEW)
    streamed = model.prompt("Say hello.", stream=True, **FEW)
    assert whole.usage().input == streamed.usage().input > 0
    assert whole.usage().output == streamed.usage().output > 0


@cell("tools")
def _() -> None:
    # It forces no tool: that the conversation with them is taken is what counts.
    chain = model.chain("Weather in Bonn?", tools=[weather], stream=False, options=FEW)
    assert isinstance(chain.text(), str)


@cell("tools streamed")
def _() -> None:
    chain = model.chain("Weather in Bonn?", tools=[weather], stream=True, options=FEW)
    assert "".join(chain) is not None


@cell("structured")
def _() -> None:
    schema = llm.schema_dsl("age int")
    told = model.prompt("Somebody?", schema=schema, stream=False, temperature=0, max_tokens=40)
    assert isinstance(json.loads(told.text())["age"], int)


@cell("structured streamed")
def _() -> None:
    schema = llm.schema_dsl("age int")
    told = model.prompt("Somebody?", schema=schema, stream=True, temperature=0, max_tokens=40)
    assert isinstance(json.loads("".join(told))["age"], int)


@cell("logprobs")
def _() -> None:
    # It knows them of completions alone.
    told = llm.get_model("plain").prompt("One two", stream=False, logprobs=2, **FEW)
    told.text()
    assert "logprobs" in json.dumps(told.response_json)


@cell("errors")
def _() -> None:
    missing = llm.get_model("missing")
    error = raises(Exception, lambda: missing.prompt("x", stream=False).text())
    assert "none-such" in str(error)


tell("llm", "openai")
