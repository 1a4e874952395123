"""A model whose layers lie at two peers, beside one peer that has all of them.

Each is `python -m node join` in a process of its own, on the loopback address: one gateway with the
whole model; one with the first half of the layers, and a peer with the rest. Our client asks both
in turn, each time with a new prompt, while the other is idle: greedy tokens in a stream, and a long
prompt of which only the first token is wanted. Both have to say the same.

`python -m tests.bench stages [smollm2|25m|100m] [PARTS]`, with 2 parts unless told otherwise
"""

import json
import statistics
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

import node
from node.client.net import Net
from node.engines.formats.gguf import FILE, describe
from node.engines.formats.smollm2 import SMOLLM2
from tests.bench.gateway import joined
from tests.bench.generate import CONTEXT, LONG, SIZES
from tests.engines.tiny_gguf import write_gguf

TOKENS = 64
ROUNDS = 5
START_S = 300.0
AIM = 0.7


def run(arguments: list[str]) -> dict[str, Any]:
    """Tokens per second of one stream, and seconds to a long prompt's first token."""
    name, parts = (arguments + ["smollm2", "2"][len(arguments) :])[:2]
    if name not in (*SIZES, "smollm2") or not parts.isdigit():
        raise SystemExit(f"models: smollm2, {', '.join(SIZES)}; not {json.dumps(arguments)}")
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as text, ExitStack() as stack:
        folder = Path(text)
        path = _file(name, folder)
        layers = describe(path).layers
        urls = [_peer(stack, folder / "whole", path)["http"]]
        ranges = _ranges(layers, int(parts))
        first = _peer(stack, folder / "0", path, layers=ranges[0])
        urls.append(first["http"])
        for number, some in enumerate(ranges[1:], 1):
            options = (first["addresses"][0], "--role", "infer", "--model", str(path))
            stack.enter_context(joined(folder / str(number), *options, "--layers", some))
        rows = trio.run(_measure, urls)
    ratio = statistics.median(there / here for here, there in rows["tokens_per_s"])
    prefill = statistics.median(here / there for here, there in rows["first_token_s"])
    return {
        "model": name,
        "ranges": ranges,
        "tokens": TOKENS,
        "whole_tokens_per_s": [round(it, 1) for it, _ in rows["tokens_per_s"]],
        "parts_tokens_per_s": [round(it, 1) for _, it in rows["tokens_per_s"]],
        "parts_to_whole": round(ratio, 3),
        "whole_first_token_s": [round(it, 2) for it, _ in rows["first_token_s"]],
        "parts_first_token_s": [round(it, 2) for _, it in rows["first_token_s"]],
        "parts_to_whole_in_a_prompt": round(prefill, 3),
        "same_tokens": rows["same"],
        "held": ratio >= AIM and rows["same"],
    }


def _file(name: str, folder: Path) -> Path:
    if name == "smollm2":
        return SMOLLM2.files()[FILE]
    path = folder / f"bench-{name}.gguf"
    return write_gguf(path, "llama", "q8_0", sizes=SIZES[name], context=CONTEXT)


def _ranges(layers: int, parts: int) -> list[str]:
    """So many ranges of about the same size."""
    cuts = [layers * at // parts for at in range(parts + 1)]
    return [f"{first}-{last - 1}" for first, last in pairwise(cuts)]


def _peer(stack: ExitStack, state: Path, path: Path, *, layers: str = "") -> dict[str, Any]:
    """A gateway that runs the model, or the first of its layers."""
    roles = ("--role", "gateway", "--role", "infer", "--http", "127.0.0.1:0")
    part = ("--layers", layers) if layers else ()
    return stack.enter_context(joined(state, *roles, "--model", str(path), *part))


async def _measure(urls: list[str]) -> dict[str, Any]:
    """Pairs of figures, of the whole model and of its parts; whether all answers were the same."""
    found: dict[str, Any] = {"tokens_per_s": [], "first_token_s": [], "same": True}
    async with node.connect(urls[0]) as one, node.connect(urls[1]) as other:
        nets = [(net, await _first_answer(net)) for net in (one, other)]
        for number in range(ROUNDS):
            streams = [await _stream(*it, f"Story {number}", TOKENS) for it in nets]
            found["tokens_per_s"].append(tuple(tokens / took_s for tokens, took_s, _ in streams))
            prompts = [await _stream(*it, f"Now {number} {LONG}", 1) for it in nets]
            found["first_token_s"].append(tuple(took_s for _, took_s, _ in prompts))
            texts = [[text for _, _, text in some] for some in (streams, prompts)]
            found["same"] &= all(here == there for here, there in texts)
    return found


async def _first_answer(net: Net) -> str:
    """Wait until the model answers; returns its name."""
    with trio.fail_after(START_S):
        while not (models := await net.models()):
            await trio.sleep(0.5)
    await net.complete(models[0].id, "First", max_tokens=2).whole()
    return models[0].id


async def _stream(net: Net, model: str, prompt: str, tokens: int) -> tuple[int, float, str]:
    """How many tokens came in how many seconds, and what they said."""
    began_at_s = trio.current_time()
    usage, text = None, ""
    async for piece in net.complete(model, prompt, max_tokens=tokens, temperature=0):
        usage, text = piece.usage, text + str(piece)
    assert usage is not None
    return usage["completion_tokens"], trio.current_time() - began_at_s, text
