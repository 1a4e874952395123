"""A gateway as a person starts it, the keys they give out, and what they get wrong."""

import time
from pathlib import Path

import openai
import pytest

from tests.live.command_line import Peer, baton, joined

HELLO = [{"role": "user", "content": "hello"}]


def client_of(gateway: Peer, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=60)


def test_openais_client_works_against_a_gateway_that_was_just_started(
    network: dict[str, Peer], state: Path
) -> None:
    where = ("--role", "gateway", "--http", "127.0.0.1:0")
    with joined(state, network["asker"].address, *where) as gateway:
        with client_of(gateway, "none") as client:
            found = client.chat.completions.create(
                model="hash",
                messages=HELLO,
                max_tokens=3,
                extra_headers={"x-baton-verdicts": "1/1"},
            )
            assert found.choices[0].message.content
            assert found.choices[0].finish_reason == "length"
        made = gateway.ask("keys", "add", "ada", "--per-minute", "100", "--json").document
        assert gateway.ask("keys", "list", "--json").document["keys"][0]["name"] == "ada"
        time.sleep(1.2)
        with client_of(gateway, "none") as stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        with client_of(gateway, made["key"]) as ada:
            assert "hash" in [it.id for it in ada.models.list()]
        assert "there is a key 'ada'" in gateway.ask("keys", "add", "ada").error
        assert gateway.ask("keys", "rm", "ada", "--json").document == {"removed": "ada"}
        assert gateway.stop().code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--http", "nonsense"), "--http 127.0.0.1:8000"),
        (("--http", "example.org:80"), "--http-name"),
        (("--http", "127.0.0.1:99999"), "99999"),
        (("--http", "127.0.0.1:0", "--http-origin", "*"), "https://app.example:8443"),
        (("--http", "127.0.0.1:0", "--http-verdicts", "3/2"), "3 of 2"),
        (("--http", "0.0.0.0:0"), "keys add"),
    ],
    ids=str,
)
def test_a_gateway_that_cannot_be_is_refused_in_one_line(
    state: Path, options: tuple[str, ...], words: str
) -> None:
    listen = ("--listen", "/ip4/127.0.0.1/tcp/0")
    assert words in baton("join", "--state", state, *listen, *options).error
