"""What the client is for, under trio and under asyncio."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import numpy as np
import pytest

import node
from node.checking.audit import audit
from node.client.net import Net
from tests.gateway.conftest import Served
from tests.gateway.engine import SAID, SLOW
from wire.errors import InputError, Missing, TaskFailed, TooSlow, Unreachable
from wire.generation import Generation
from wire.payload import Vectors

Asking = Callable[[Net], Awaitable[Any]]
Run = Callable[..., Any]
TEXT = "Zwölf Boxkämpfer 🥊 jagen"


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest, url: str) -> Run:
    """Run one function of a connected client to its end, on either event loop."""

    def run_one(asking: Asking, address: str = url, **options: Any) -> Any:
        async def connected() -> Any:
            async with node.connect(address, **{"deadline_s": 20, **options}) as net:
                return await asking(net)

        return anyio.run(connected, backend=request.param)

    return run_one


def test_a_chat_comes_in_pieces_and_ends_with_its_receipt(run: Run) -> None:
    async def asking(net: Net) -> None:
        pieces = [it async for it in net.chat("hash", SAID + TEXT, max_tokens=100)]
        assert "".join(map(str, pieces)) == TEXT
        assert len(pieces) > 1
        *earlier, last = pieces
        assert not any(it.finish_reason or it.receipt for it in earlier)
        assert last.finish_reason == "stop"
        assert last.usage is not None
        assert last.usage["completion_tokens"] == len(TEXT.encode()) // 2 + 1
        assert last.task is not None
        assert last.receipt is not None
        kept = await net.receipt(last.receipt)
        assert kept.task == last.task
        assert kept.route
        assert audit(kept.data, lambda _: None).holds

    run(asking)


def test_a_conversation_is_as_openai_words_it_and_can_be_had_whole(run: Run) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": SAID + TEXT},
    ]

    async def asking(net: Net) -> None:
        cut = await net.chat("hash", messages, max_tokens=3).whole()
        assert (cut.text, cut.finish_reason) == ("Zwölf", "length")
        told = await net.chat(
            "hash", messages, max_tokens=3, logprobs=True, top_logprobs=1, verdicts="1/2"
        ).whole()
        assert told.logprobs is not None
        assert len(told.logprobs["content"]) == 3
        assert told.receipt is not None
        assert (await net.receipt(told.receipt)).verified

    run(asking)


def test_a_prompt_is_gone_on_from(run: Run) -> None:
    async def asking(net: Net) -> None:
        first = await net.complete("hash", "Once upon", max_tokens=5).whole()
        again = await net.complete("hash", "Once upon", max_tokens=5).whole()
        assert first.text == again.text
        assert len(first.text.split()) == 5

    run(asking)


def test_texts_become_vectors(run: Run) -> None:
    async def asking(net: Net) -> None:
        found = await net.embed("hash", ["one", "two", "one"])
        assert found.vectors.shape == (3, 64)
        assert found.vectors.dtype == np.float32
        assert (found.vectors[0] == found.vectors[2]).all()
        assert not (found.vectors[0] == found.vectors[1]).all()
        assert (await net.receipt(found.receipt)).task == found.task
        assert (await net.embed("hash", "one")).vectors.shape == (1, 64)

    run(asking)


def test_named_arrays_go_in_and_come_out(run: Run) -> None:
    inputs = {
        "a": np.arange(6, dtype=np.int64).reshape(2, 3),
        "b": np.float32(1.5),
        "turned": np.arange(6, dtype=">f8").reshape(2, 3).T,
        "list": [1.0, 2.0],
        "none": np.zeros((0, 2), np.float16),
    }

    async def asking(net: Net) -> None:
        found = await net.infer("doubling", inputs)
        assert found.outputs.keys() == inputs.keys()
        for name, value in inputs.items():
            wanted = np.asarray(value)
            assert found.outputs[name].shape == wanted.shape, name
            assert found.outputs[name].dtype == wanted.dtype.newbyteorder("="), name
            np.testing.assert_array_equal(found.outputs[name], wanted * 2)
        assert (await net.receipt(found.receipt)).task == found.task
        with pytest.raises(InputError, match="text is an array of str"):
            await net.infer("doubling", {"text": np.array(["no"])})

    run(asking)


def test_a_task_is_submitted_and_its_result_fetched(run: Run) -> None:
    asked = Generation(prompt="Once", messages="", tools="", schema="", stop=())

    async def asking(net: Net) -> None:
        task = await net.submit("hash", "embed", ["one", "two"], verdicts="1/2")
        found = await net.result(task)
        assert found.task == task
        assert found.verified
        assert Vectors.from_bytes(found.output).rows == 2
        task = await net.submit("hash", "generate", asked.to_bytes(), parameters={"tokens": 4})
        assert (await net.result(task)).output.startswith(b"t")
        assert (await net.result(task)).receipt == (await net.result(task)).receipt

    run(asking)


def test_a_task_is_cancelled_and_said_to_have_failed(run: Run, served: Served) -> None:
    asked = Generation(prompt=SLOW, messages="", tools="", schema="", stop=())

    async def asking(net: Net) -> None:
        task = await net.submit("hash", "generate", asked.to_bytes(), parameters={"tokens": 4000})
        with pytest.raises(TooSlow):
            await net.result(task, deadline_s=0.5)
        await net.cancel(task)
        with pytest.raises(TaskFailed, match="cancelled"):
            await net.result(task)

    run(asking)


def test_models_are_listed(run: Run) -> None:
    async def asking(net: Net) -> None:
        found = {it.name: it for it in await net.models()}
        assert {"hash", "doubling"} <= found.keys()
        assert found["hash"].peers >= 1
        by_id = await net.complete(found["hash"].id, "by id", max_tokens=2).whole()
        assert by_id.text == (await net.complete("hash", "by id", max_tokens=2).whole()).text

    run(asking)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "with the next call"])
def test_who_leaves_early_has_the_work_stopped(run: Run, served: Served, at_once: bool) -> None:
    async def asking(net: Net) -> None:
        if at_once:
            async with net.chat("hash", SLOW) as pieces:
                async for piece in pieces:
                    assert piece.text
                    break
        else:
            async for piece in net.chat("hash", SLOW):
                assert piece.text
                break
            await net.models()
        with anyio.fail_after(60):
            while served.engine.under_way:
                await anyio.sleep(0.02)

    run(asking)


def test_what_makes_no_sense_is_said_in_words(run: Run) -> None:
    async def asking(net: Net) -> None:
        with pytest.raises(InputError, match="nearest is 'hash'"):
            await net.chat("hasch", "hello").whole()
        with pytest.raises(InputError, match="temperature"):
            await net.chat("hash", "hello", temperature=9).whole()
        with pytest.raises(InputError, match="context has 4096"):
            await net.chat("hash", "TOO LONG").whole()
        with pytest.raises(InputError, match="JSON"):
            net.chat("hash", "hello", temperature=float("nan"))
        with pytest.raises(InputError, match="one answer"):
            net.chat("hash", "hello", n=2)
        with pytest.raises(InputError, match="does not do"):
            await net.embed("doubling", ["one"])
        with pytest.raises(InputError, match="possible deadline"):
            await net.models(deadline_s=0)
        for name in ("../models", "a/b", ""):
            with pytest.raises(InputError, match="not an id"):
                await net.receipt(name)
        with pytest.raises(Missing):
            await net.receipt("bafnothing")
        with pytest.raises(Missing):
            await net.result("bafnothing")

    run(asking)


def test_a_call_ends_at_its_deadline(run: Run) -> None:
    async def asking(net: Net) -> None:
        began_at_s = anyio.current_time()
        with pytest.raises(TooSlow, match="deadline_s"):
            await net.chat("hash", SLOW, deadline_s=1).whole()
        assert anyio.current_time() - began_at_s < 5

    run(asking)


def test_many_calls_share_one_client(run: Run) -> None:
    async def asking(net: Net) -> None:
        found: dict[int, str] = {}

        async def one(number: int) -> None:
            found[number] = (await net.chat("hash", f"{SAID}{number}").whole()).text

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(one, number)
        assert found == {number: str(number) for number in range(12)}

    run(asking)


def test_a_gateway_that_is_not_there_is_said_to_be(run: Run) -> None:
    async def asking(net: Net) -> None:
        began_at_s = anyio.current_time()
        with pytest.raises(Unreachable, match=r"nobody answers at http://127.0.0.1:9.*join"):
            await net.models()
        assert anyio.current_time() - began_at_s < 5

    run(asking, "http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://127.0.0.1", "http://", "http://a:b"])
def test_what_is_no_address_is_refused(run: Run, address: str) -> None:
    async def asking(net: Net) -> None:
        raise AssertionError("connected")

    with pytest.raises(InputError, match="not an address"):
        run(asking, address)


def test_the_blocking_form_does_everything_the_other_does(url: str) -> None:
    with node.connect_blocking(url, deadline_s=20) as net:
        pieces = list(net.chat("hash", SAID + TEXT))
        assert "".join(map(str, pieces)) == TEXT
        assert net.receipt(pieces[-1].receipt).task == pieces[-1].task
        assert net.chat("hash", SAID + TEXT).whole().text == TEXT
        assert net.embed("hash", ["one"]).vectors.shape == (1, 64)
        assert net.infer("doubling", {"x": [1.0]}).outputs["x"].tolist() == [2.0]
        assert net.result(net.submit("hash", "embed", ["one"])).output
        for _ in net.chat("hash", SLOW):
            break
        with net.chat("hash", SLOW) as slow:
            assert next(slow).text
        assert "hash" in {it.name for it in net.models()}
        with pytest.raises(InputError, match="nearest"):
            net.embed("hasch", "one")
        public = {it for it in vars(Net) if not it.startswith("_")}
        assert public <= set(dir(net))
