"""Calls a second of two digit models, from 128 clients that each ask for one row at a time.

They are compared with plain tinygrad, called one by one in a process of its own: `OnnxRunner`
called with an array, and the same with `TinyJit` around it; there is a ratio to each. If
onnxruntime can be imported, they are also compared with it: one thread, a row at a time and 64 at
once. The network is an asking and an inference peer in this process, over TCP and noise, without
checks; once with calls of one row, once with calls of 64.

`python -m tests.bench onnx`; `--engine` leaves the network out. `--files` compares files that
people have with onnxruntime instead, both in one process and on one thread, in its own time on the
processor: `PYTHONPATH=FOLDER` has the packages of `tests/engines/onnx_real_files.py`.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trio

from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig, prepare
from node.engines.interface import Job
from tests.engines.onnx_models import FOLDER, golden, manifest_of, to_tensors
from tests.engines.onnx_real_files import FILES
from wire.model import Manifest

MODELS = {"digits_mlp": "torch_mlp", "digits_cnn": "torch_cnn"}
CLIENTS = 128
ENGINE_ROUNDS = 100
NETWORK_ROUNDS = 16
PLAIN_S = 5.0
Ask = Callable[[int, int], Awaitable[object]]


def run(arguments: list[str]) -> dict[str, Any]:
    """Calls per second, and the median and 99th percentile of latency in milliseconds."""
    if "--files" in arguments:
        return _real_files()
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return trio.run(_compare, Path(folder), "--engine" not in arguments)


async def _compare(folder: Path, network: bool) -> dict[str, Any]:
    config = EngineConfig(jobs_max=2 * CLIENTS)
    found: dict[str, Any] = {"clients": CLIENTS}
    for title, name in MODELS.items():
        figures: dict[str, Any] = {}
        async with open_tinygrad_engine(folder / "cache", config=config) as engine:
            manifest, files = manifest_of(FOLDER / f"{name}.onnx")
            for start in ("cold_load_s", "warm_load_s"):
                began_at_s = trio.current_time()
                await engine.load(manifest, files)
                figures[start] = round(trio.current_time() - began_at_s, 2)
                await engine.unload(manifest.id)
            await engine.load(manifest, files)
            inputs = _inputs(name)

            async def ask(number: int, step: int) -> None:
                job = _job(manifest, inputs[(number + step) % len(inputs)])  # noqa: B023
                await engine.infer(job)

            await _clients(ask, 5)
            figures["engine"] = await _clients(ask, ENGINE_ROUNDS)
        if network:
            figures |= await _through_network(folder / title, folder / "cache", name)
        launch = await prepare(folder / "cache", config)
        for form in ("plain_as_it_comes", "plain_captured"):
            done = await trio.run_process(
                [sys.executable, "-m", "tests.bench.onnx", form, name],
                env=dict(launch.environment),
                capture_stdout=True,
            )
            figures[f"{form}_per_s"] = round(float(done.stdout), 1)
        figures["onnxruntime"] = _onnxruntime(name)
        for place in ("engine", "network"):
            for form in ("plain_as_it_comes", "plain_captured"):
                if place in figures:
                    ratio = figures[place]["per_s"] / figures[f"{form}_per_s"]
                    figures[f"{place}_to_{form}"] = round(ratio, 2)
        found[title] = figures
    return found | {"aim": ">= 10 x plain"}


def _inputs(name: str) -> list[bytes]:
    """Rows as encoded calls, made once, so that the clients' own work is not measured."""
    arrays, _ = golden(name)
    rows = len(next(iter(arrays.values())))
    return [
        to_tensors({key: it[row : row + 1] for key, it in arrays.items()}) for row in range(rows)
    ]


def _job(manifest: Manifest, data: bytes) -> Job:
    return Job(model=manifest.id, operation="call", input=data, parameters={}, deadline_s=60.0)


async def _clients(ask: Ask, rounds: int) -> dict[str, float]:
    took_s: list[float] = []

    async def client(number: int) -> None:
        for step in range(rounds):
            asked_s = trio.current_time()
            await ask(number, step)
            took_s.append(trio.current_time() - asked_s)

    began_at_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(client, number)
    per_s = CLIENTS * rounds / (trio.current_time() - began_at_s)
    took_s.sort()
    return {
        "per_s": round(per_s, 1),
        "p50_ms": round(took_s[len(took_s) // 2] * 1e3, 2),
        "p99_ms": round(took_s[int(len(took_s) * 0.99)] * 1e3, 2),
    }


async def _through_network(folder: Path, cache: Path, name: str) -> dict[str, Any]:
    from node.asking.run import TaskRequest
    from node.commands.running import collect_seldom
    from node.task.events import ignore_event
    from p2p.over_libp2p import TcpTransport
    from store import open_store
    from tests.node.network import I, Network, S
    from wire.kinds import Level, Role
    from wire.task import Stage

    config = EngineConfig(jobs_max=2 * CLIENTS)
    manifest, _ = manifest_of(FOLDER / f"{name}.onnx")
    tcp = TcpTransport(wall_ns=lambda: 1)
    async with AsyncExitStack() as stack:
        network = Network(stack, folder)
        for roles in ((S,), (I, S)):
            place = folder / f"store-{len(network.nodes)}"
            place.parent.mkdir(parents=True, exist_ok=True)
            engine = await stack.enter_async_context(open_tinygrad_engine(cache, config=config))
            store = await stack.enter_async_context(open_store(place, quota_bytes=1 << 30))
            content = await store.put_file(FOLDER / f"{name}.onnx", pin="model")
            assert content == manifest.files[0].content
            await store.put(manifest.to_bytes(), pin="model")
            await network.add(
                *roles,
                models=(str(manifest.id),),
                engine=engine,
                store=store,
                listen=("/ip4/127.0.0.1/tcp/0",),
                alter=lambda parts: replace(parts, transport=tcp),
            )
        with trio.fail_after(120):
            await network.settled(within_s=120)
        # As `join` does: else a part of what is measured is garbage that is collected too often.
        collect_seldom()
        asker = network.nodes[0]
        stage = Stage(role=Role.INFER, operation="call", model=manifest.id, parameters={})
        arrays, _ = golden(name)
        chance = np.random.default_rng(1)

        def requests(rows: int, count: int) -> Iterator[TaskRequest]:
            """All inputs differ, so that no answer comes from an earlier one."""
            for _ in range(count):
                data = to_tensors(
                    {
                        key: it[:rows] + chance.standard_normal((rows, *it.shape[1:]), it.dtype)
                        for key, it in arrays.items()
                    }
                )
                yield TaskRequest(
                    stages=(stage,), input=data, level=Level.SIGNED, verifiers=0, needed=0
                )

        found: dict[str, Any] = {}
        for title, rows in (("network", 1), ("network_by_64_rows", 64)):
            for rounds in (1, NETWORK_ROUNDS):
                # Made before, so that the clients' own work is not measured.
                made = iter(list(requests(rows, CLIENTS * rounds)))

                async def ask(_number: int, _step: int) -> None:
                    request = next(made)  # noqa: B023
                    await asker.tasks.watch(await asker.tasks.submit(request), ignore_event)

                found[title] = await _clients(ask, rounds)
        found["network_by_64_rows"]["rows_per_s"] = 64 * found["network_by_64_rows"]["per_s"]
        return found


def _onnxruntime(name: str) -> dict[str, float] | None:
    """Rows per second of onnxruntime alone, in this process; None if it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(FOLDER / f"{name}.onnx", options)
    arrays, _ = golden(name)
    figures = {}
    for rows in (1, 64):
        feed = {key: it[:rows] for key, it in arrays.items()}
        per_s = _repeated(lambda feed=feed: session.run(None, feed), 2.0)
        figures[f"rows_per_s_by_{rows}"] = round(per_s * rows, 1)
    return figures


def _real_files() -> dict[str, Any]:
    """Milliseconds of each file that is here, and how many times as long as onnxruntime."""
    found: dict[str, Any] = {}
    for file in FILES:
        path = None if file.refused else file.find()
        if path is not None:
            command = [sys.executable, "-m", "tests.bench.onnx", "beside", str(path)]
            with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
                launch = trio.run(prepare, Path(folder), EngineConfig())
                done = subprocess.run(
                    command, env=dict(launch.environment), capture_output=True, check=False
                )
            found[file.name] = (
                json.loads(done.stdout.splitlines()[-1])
                if done.returncode == 0
                else done.stderr.decode()[-400:]
            )
    return found | {"aim": "<= 3 x of onnxruntime for one row, <= 1 x for 64"}


def beside(path: Path) -> dict[str, Any]:
    """One file, run by a worker's own code and by onnxruntime, in this process."""
    import onnxruntime

    from node.engines.worker.device import WorkerDevice
    from node.engines.worker.load_progress import LoadProgress
    from node.engines.worker.onnx import load

    (file,) = [it for it in FILES if it.name == path.stem and it.find() == path]
    manifest, files = manifest_of(path)
    progress = LoadProgress(lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.process_time()
        made = load(manifest, files, WorkerDevice(Path(folder), "bench", 0, progress))
        found: dict[str, Any] = {"cold_load_cpu_s": round(time.process_time() - began_s, 1)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = file.arrays({it.name: it.kind for it in made.graph.model.inputs})
    for rows in (1, 64) if 64 in made.buckets else (1,):
        feed = {key: np.repeat(it, rows, axis=0) if rows > 1 else it for key, it in given.items()}
        arrays = [feed[it.name] for it in made.graph.model.inputs]
        ready = made.buckets[rows] if made.buckets else made._ready_for(arrays)

        def ours() -> object:
            return made.graph.run(ready.jit, ready.sources, arrays)  # noqa: B023

        def theirs() -> object:
            return session.run(None, feed)  # noqa: B023

        took = [1e3 / _repeated(do, 3.0, time.thread_time) for do in (ours, theirs)]
        found[f"{rows}_rows"] = {
            "ours_ms": round(took[0], 2),
            "onnxruntime_ms": round(took[1], 2),
            "times_as_long": round(took[0] / took[1], 2),
        }
    return found


def _repeated(
    do: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    do()
    began_at_s, count = clock(), 0
    while clock() - began_at_s < seconds:
        do()
        count += 1
    return count / (clock() - began_at_s)


def plain(form: str, name: str) -> float:
    """Calls per second of tinygrad, one row at a time."""
    from tinygrad import Tensor, TinyJit
    from tinygrad.nn.onnx import OnnxRunner

    runner = OnnxRunner(FOLDER / f"{name}.onnx")
    arrays, _ = golden(name)
    ((key, rows),) = arrays.items()
    places = iter(range(10**9))

    def row() -> np.ndarray:
        at = next(places) % len(rows)
        return rows[at : at + 1]

    if form == "plain_as_it_comes":
        return _repeated(lambda: [it.numpy() for it in runner({key: row()}).values()], PLAIN_S)
    captured = TinyJit(lambda x: [it.realize() for it in runner({key: x}).values()])
    for _ in range(3):
        captured(Tensor(row()).realize())
    return _repeated(lambda: [it.numpy() for it in captured(Tensor(row()).realize())], PLAIN_S)


if __name__ == "__main__":
    assert len(sys.argv) == 3, "run it as: python -m tests.bench onnx"
    if sys.argv[1] == "beside":
        print(json.dumps(beside(Path(sys.argv[2]))))
    else:
        print(plain(sys.argv[1], sys.argv[2]))
