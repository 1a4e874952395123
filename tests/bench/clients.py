"""What the clients that people have can do here: each real client, feature by feature.

Each client has an environment of its own, in a cache folder, made when it is first needed, with
pinned versions from the package registries. Its program in `client_programs` tries every feature
against a gateway that serves SmolLM2 and MiniLM, and prints a cell for each: works, refused by name
(a 400 that names the field), or fails. What a client has no way to ask for has no cell.

`python -m tests.bench clients [--table FILE] [--record FOLDER] [--cache FOLDER]
[--url URL] [CLIENT …]`

`--table` also writes the cells as a Markdown table; `--url` asks a gateway that is there already;
`--record tests/gateway/conversations` writes down what clients send, for `tests/gateway`.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.bench._recorder import recording
from tests.bench.gateway import joined

PROGRAMS = Path(__file__).parent / "client_programs"
CACHE = Path.home() / ".cache" / "baton" / "clients"
MODEL, EMBEDDER = "smollm2", "minilm"
# While they are recorded, clients ask for the model that the tests serve.
RECORDED = ("hash", "hash")
INSTALL_S, RUN_S, READY_S = 1200, 900, 600
SIGNS = {"works": "✓", "refused": "refused", "fails": "**fails**"}
NO_CELL = "-"


@dataclass(frozen=True, slots=True)
class Client:
    """One client: what is installed for it, and its program."""

    name: str
    program: str
    packages: tuple[str, ...]

    @property
    def folder_name(self) -> str:
        pins = hashlib.sha256("\n".join(self.packages).encode()).hexdigest()[:10]
        return f"{Path(self.program).stem}-{pins}"


OPENAI, ANTHROPIC = "openai==3.57.0", "anthropic==2.14.0"
JAVASCRIPT = ("openai@6.49.0", "zod@4.6.7")
CLIENTS = (
    Client("openai (Python)", "openai_python.py", (OPENAI,)),
    Client("openai (JavaScript)", "openai_javascript.mjs", JAVASCRIPT),
    Client(
        "ai SDK",
        "ai_sdk.mjs",
        ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@2.0.92", "zod@4.6.7"),
    ),
    Client(
        "langchain-openai",
        "langchain_python.py",
        (OPENAI, "langchain-openai==1.7.4", "langchain-core==1.8.3"),
    ),
    Client(
        "llama-index",
        "llama_index_python.py",
        (
            *("llama-index-core==0.14.25", "llama-index-llms-openai-like==0.8.1"),
            *("llama-index-embeddings-openai-like==0.4.0", "openai==2.54.0"),
        ),
    ),
    Client("instructor", "instructor_python.py", ("instructor==1.17.0", "openai==3.3.0")),
    Client(
        "pydantic-ai",
        "pydantic_ai_python.py",
        (OPENAI, ANTHROPIC, "pydantic-ai-slim[openai,anthropic]==2.68.0"),
    ),
    Client("litellm", "litellm_python.py", (OPENAI, "litellm==1.110.2")),
    Client("ollama (Python)", "ollama_python.py", ("ollama==0.6.3",)),
    Client("anthropic (Python)", "anthropic_python.py", (ANTHROPIC,)),
    Client("llm", "llm_python.py", (OPENAI, "llm==0.36")),
)
# The columns of the table; a program may have cells besides, which are columns too.
FEATURES = (
    *("models", "chat", "stream", "usage", "tools", "tools streamed", "structured"),
    *("structured streamed", "logprobs", "embeddings", "responses", "messages", "ollama", "errors"),
)


def run(arguments: list[str]) -> dict[str, Any]:
    """The cells of every client, and whether none of them fails."""
    asked = _parsed(arguments)
    chosen = [it for it in CLIENTS if not asked.clients or it.name in asked.clients]
    chosen = chosen or [it for it in CLIENTS if Path(it.program).stem in asked.clients]
    environments = {it.name: environment_of(it, asked.cache) for it in chosen}
    with _served(asked.url) as url:
        found = {}
        for client in chosen:
            folder = environments[client.name]
            if asked.record is None:
                found[client.name] = tried(client, folder, url, (MODEL, EMBEDDER))
                continue
            file = asked.record / f"{Path(client.program).stem}.jsonl"
            with recording(url, file) as proxy:
                found[client.name] = tried(client, folder, proxy, RECORDED)
    table = table_of(found)
    if asked.table is not None:
        asked.table.write_text(table)
    states = [cell["state"] for it in found.values() for cell in it["cells"].values()]
    counts = {state: states.count(state) for state in SIGNS}
    return {
        "clients": found,
        "table": table.splitlines(),
        "cells": counts,
        "held": bool(states) and not counts["fails"],
    }


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench clients")
    parser.add_argument("clients", nargs="*", help="names of clients; all without")
    parser.add_argument("--table", type=Path, help="write the table to this file")
    parser.add_argument("--record", type=Path, help="write what clients send to this folder")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where environments are kept")
    parser.add_argument("--url", help="a gateway that serves smollm2 and minilm")
    return parser.parse_args(arguments)


# Environments


def environment_of(client: Client, cache: Path) -> Path:
    """The folder of a client's environment, which is made if it is not there whole."""
    folder = cache / client.folder_name
    done = folder / "installed"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if client.program.endswith(".mjs"):
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        _install(["npm", "install", "--no-audit", "--no-fund", *client.packages], folder)
    else:
        _install([sys.executable, "-m", "venv", str(folder)], folder)
        python = str(folder / "bin" / "python")
        _install([python, "-m", "pip", "install", "-q", *client.packages], folder)
    done.touch()
    return folder


def _install(command: list[str], folder: Path) -> None:
    ended = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)}: {ended.stderr.strip()[-400:]}")


# Clients


def tried(client: Client, folder: Path, url: str, models: Sequence[str]) -> dict[str, Any]:
    """What a client's program says of its features; one failed cell if it says nothing."""
    if client.program.endswith(".mjs"):
        # Modules are looked for beside the program.
        for path in PROGRAMS.glob("*.mjs"):
            shutil.copy(path, folder)
        command = ["node", str(folder / client.program)]
    else:
        command = [str(folder / "bin" / "python"), str(PROGRAMS / client.program)]
    began_at_s = time.monotonic()
    try:
        ended = subprocess.run(
            [*command, url, *models],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        found = _nothing(f"it took more than {RUN_S} s")
    except (IndexError, ValueError):
        found = _nothing(ended.stderr.strip()[-400:])
    return found | {"took_s": round(time.monotonic() - began_at_s, 1)}


def _nothing(why: str) -> dict[str, Any]:
    return {"versions": {}, "cells": {"program": {"state": "fails", "why": why}}}


def table_of(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The cells as a table in Markdown, a line for each client."""
    told = {name for it in found.values() for name in it["cells"]}
    columns = [it for it in FEATURES if it in told] + sorted(told - {*FEATURES})
    lines = [f"| client | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, it in found.items():
        version = next(iter(it["versions"].values()), "")
        cells = [
            SIGNS[it["cells"][column]["state"]] if column in it["cells"] else NO_CELL
            for column in columns
        ]
        lines.append(f"| {name} {version} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# The gateway


@contextmanager
def _served(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as text:
        roles = ("--role", "infer", "--role", "gateway", "--http", "127.0.0.1:0")
        with joined(Path(text) / "state", *roles, "--model", MODEL, "--model", EMBEDDER) as told:
            _wait(told["http"])
            yield told["http"]


def _wait(url: str) -> None:
    """Wait until both models are served."""
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        if httpx.get(f"{url}/ready").status_code == 200:
            rows = httpx.get(f"{url}/v1/models").json()["data"]
            if sum(it["x_baton"]["peers"] > 0 for it in rows) == 2:
                return
        time.sleep(0.5)
    raise RuntimeError(f"the models were not served within {READY_S} s")
