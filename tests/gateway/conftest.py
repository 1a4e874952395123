"""One network with a gateway for all tests of this folder, in a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
import trio

from node.gateway.server import open_gateway
from node.gateway_config import GatewayConfig
from node.peer import Node
from tests.gateway.engine import SpeakingEngine, calling_manifest, reranking_manifest
from tests.node.network import I, S, V, open_network
from wire.kinds import Role
from wire.task import Stage

START_S = 30.0
CALL_STAGE = Stage(role=Role.INFER, operation="call", model=calling_manifest().id, parameters={})
# Short enough for tests, long enough for a busy machine.
QUICK = GatewayConfig(port=0, idle_s=3.0, body_s=1.5, send_s=2.0, deadline_s=60)


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that is up."""

    url: str
    node: Node
    engine: SpeakingEngine

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: object) -> openai.OpenAI:
        settings: dict[str, object] = {"api_key": "none", "max_retries": 0, "timeout": 20}
        return openai.OpenAI(base_url=f"{self.url}/v1", **{**settings, **options})  # type: ignore[arg-type]


@contextmanager
def serving(
    folder: Path,
    config: GatewayConfig = QUICK,
    before: Callable[[Node], None] = lambda _: None,
    also: Stage | None = None,
) -> Iterator[Served]:
    """A gateway, a peer that runs models and two that check, for as long as the block runs.

    `also` is asked of the model that reranks, which is there too then.
    """
    up: Future[tuple[Served, trio.lowlevel.TrioToken, trio.CancelScope]] = Future()

    async def live() -> None:
        with trio.CancelScope() as scope:
            async with open_network(folder) as network:
                asker = await network.add(S)
                engine = SpeakingEngine()
                worker = await network.add(I, S, engine=engine)
                for _ in range(2):
                    await network.add(V, engine=SpeakingEngine())
                await worker.models.keep(calling_manifest())
                await worker.models.make_ready("doubling")
                if also is not None:
                    await worker.models.keep(reranking_manifest())
                    await worker.models.make_ready("reranker")
                worker.probing.look()
                await network.settled()
                while not asker.tasks.dispatcher.directory.anybody(CALL_STAGE):
                    await trio.sleep(0.05)
                while also is not None and not asker.tasks.dispatcher.directory.anybody(also):
                    await trio.sleep(0.05)
                before(asker)
                async with open_gateway(asker, config) as url:
                    token = trio.lowlevel.current_trio_token()
                    up.set_result((Served(url, asker, engine), token, scope))
                    await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(live)
        except BaseException as error:
            if up.done():
                raise
            up.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    served, token, scope = up.result(START_S)
    try:
        yield served
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(START_S)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with served.client() as found:
        yield found


@pytest.fixture(scope="session")
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as found:
        yield found
