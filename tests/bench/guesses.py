"""What guesses by repetition give SmolLM2: the same answers with and without, and their passes.

A pass of four rows costs as much as so many of one, and one of eight as well; both are measured
here, so that the figures do not hang on what else the machine does. The texts are an edit of code
and a summary, which repeat what they are asked about, and a story, which does not.

`python -m tests.bench guesses`
"""

import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from node.engines.formats.smollm2 import SMOLLM2
from node.engines.host.launch import default_device

TOKENS = 160
TRIES = 5
SIZES = (1, 4, 8)
CODE = """def area_of_circle(radius):
    if radius < 0:
        raise ValueError('radius must not be negative')
    return 3.14159 * radius * radius

def area_of_rectangle(width, height):
    if width < 0 or height < 0:
        raise ValueError('sides must not be negative')
    return width * height
"""
RACE = (
    "The relay race is a track event in which four athletes each run an equal distance, handing a"
    " baton from one to the next within an exchange zone of thirty metres. A team that drops the"
    " baton may pick it up, but a team that hands it over outside of the zone is disqualified."
)
ASKED = {
    "code edit": f"Here is a file:\n\n{CODE}\nRepeat the whole file, and rename width to w.",
    "summary": f"Summarise, quoting the text: {RACE}",
    "story": "Write a strange short story about a lighthouse keeper and a storm.",
}


def run(arguments: list[str]) -> dict[str, Any]:
    """Passes and what they cost, without guesses and with them, greedy and drawn."""
    if arguments:
        raise SystemExit("it takes no arguments")
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        # tinygrad reads these when it is imported.
        os.environ |= {"DEV": default_device(), "CACHEDB": f"{folder}/kernels.db", "PARALLEL": "0"}
        return _measured(Path(folder, "graphs"))


def _measured(cache: Path) -> dict[str, Any]:
    from node.engines.worker.device import WorkerDevice
    from node.engines.worker.language_model import load
    from node.engines.worker.load_progress import LoadProgress
    from node.engines.worker.passes import SlotRow

    place = WorkerDevice(cache, "bench", 0, LoadProgress(lambda _: None))
    model: Any = load(SMOLLM2.manifest(), SMOLLM2.files(), place)
    costs = {}
    for size in SIZES:
        took_s = []
        for _ in range(TRIES):
            began_s = time.process_time()
            model._language.run([SlotRow(5, 0, at, (0,)) for at in range(size)])
            took_s.append(time.process_time() - began_s)
        costs[size] = min(took_s)
    found: dict[str, Any] = {"costs": {at: round(it / costs[1], 2) for at, it in costs.items()}}
    for name, text in ASKED.items():
        for temperature in (0.0, 1.0):
            without, plain = _answered(model, text, temperature, ())
            with_guesses, passes = _answered(model, text, temperature, SIZES)
            cost = sum(costs[size] * count for size, count in passes.items()) / costs[1]
            found[f"{name}, temperature {temperature:g}"] = {
                "same": without == with_guesses,
                "passes": dict(sorted(passes.items())),
                "faster": round(sum(plain.values()) / cost, 2),
            }
    figures = [it for key, it in found.items() if key != "costs"]
    found["held"] = all(it["same"] and it["faster"] >= 0.95 for it in figures)
    return found


def _answered(
    model: Any, text: str, temperature: float, guessing: tuple[int, ...]
) -> tuple[bytes, Counter[int]]:
    """An answer's frames, and how many passes of which size made it."""
    from wire.generation import Generation

    slots, passes = model._slots, Counter[int]()
    for slot in slots._slots:
        slots._cut(slot, 0)
    slots._guessing = guessing
    messages = json.dumps([{"role": "user", "content": text}])
    asked = Generation(prompt="", messages=messages, tools="", schema="", stop=())
    parameters = {"tokens": TOKENS, "temperature": temperature, "seed": 3, "ignore_eos": 1}
    job = {"id": 1, "input": asked.to_bytes(), "parameters": parameters, "shown": []}
    begin, frames = [job | {"claimed": None, "slack": 0.0}], list[bytes]()
    forward = model._language.run

    def counted(rows: Any, *others: Any, **named: Any) -> Any:
        if frames:
            passes[next(size for size in SIZES if size >= len(rows))] += 1
        return forward(rows, *others, **named)

    model._language.run = counted
    try:
        while True:
            message = {"end": [], "begin": begin, "paused": [], "threads": 1}
            reply, begin = model.answer(message), []
            frames += [frame for _, some in reply["made"] for frame in some]
            if reply["free"] == reply["slots"]:
                return b"".join(frames), passes
    finally:
        model._language.run = forward
