"""A model that calls a function of yours, with OpenAI's own client."""

import json
import os
import sys

import openai

TEMPERATURES = {"Zürich": 17, "Bergen": 9}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The temperature in a city, in degrees Celsius.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def weather(city: str) -> str:
    return f"{TEMPERATURES[city]} °C" if city in TEMPERATURES else "unknown"


def main(model: str, question: str) -> None:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    client = openai.OpenAI(
        base_url=f"{address}/v1", api_key=os.environ.get("BATON_KEY", "none"), timeout=600
    )
    messages = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model=model, messages=messages, tools=[TOOL])
    message = answer.choices[0].message
    for call in message.tool_calls or []:
        # What the model writes is input like any other: it may not fit.
        arguments = json.loads(call.function.arguments)
        print(f"{call.function.name}({arguments}) = {weather(str(arguments.get('city')))}")
    print(message.content or "")


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 3:
        print(f"{__doc__}\nusage: python {sys.argv[0]} MODEL QUESTION")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
