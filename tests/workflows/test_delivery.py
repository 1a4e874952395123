"""Where results go: lines of a file, each once, and a server that may be down for a day."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.workflows.result_file import ResultFile
from node.workflows.webhook import key_of
from store import open_memory_store
from tests.ingest.servers import MadeUpNetwork, moved, reply
from tests.workflows.keeping import SECOND, MadeSteps, entries, keeping, seams
from wire.errors import InputError, StoreUnusable

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
HOOK = '[[to]]\nkind = "webhook"\nurl = "http://hooks.example.org/in"\nsecret = "hook"\n'


def credential(folder: Path, text: str = SECRET, mode: int = 0o600) -> None:
    file = folder / "credentials" / "hook"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


class Receiver:
    """A server that takes webhooks, and checks the signature as anybody would."""

    def __init__(self) -> None:
        self.answer = reply(status=200)
        self.tried = 0
        self.taken: list[dict[str, Any]] = []
        self.ids: list[str] = []

    def __call__(self, asked: str) -> bytes:
        self.tried += 1
        head, _, body = asked.partition("\r\n\r\n")
        lines = dict(it.split(": ", 1) for it in head.splitlines()[1:])
        headers = {name.lower(): value for name, value in lines.items()}
        assert head.startswith("POST /in HTTP/1.1")
        message_id, at = headers["webhook-id"], headers["webhook-timestamp"]
        signed = f"{message_id}.{at}.{body}".encode()
        mac = hmac.new(bytes(range(24)), signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
        assert headers["content-type"] == "application/json"
        if " 200 " in self.answer.decode().splitlines()[0]:
            self.taken.append(json.loads(body))
            self.ids.append(message_id)
        return self.answer


async def test_a_webhook_is_signed_and_comes_once_for_each_slot(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    credential(tmp_path)
    receiver = Receiver()
    site = MadeUpNetwork(answer=receiver)
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps(), site)) as keeper,
    ):
        await keeper.add(SECOND + HOOK, "w")
        await trio.sleep(5.5)
        assert [it["number"] for it in receiver.taken] == [1, 2, 3, 4, 5]
        first = receiver.taken[0]
        assert (first["workflow"], first["end"], first["result"]) == ("w", "done", {"text": "said"})
        assert first["slot"] == "2027-01-15T08:00:01.000Z"
        assert first["receipt"] == str(entries(keeper)[0].answer)
        assert len(set(receiver.ids)) == 5
        document = keeper.get("w").deliveries[0].progress_map()
        assert (document["delivered"], document["waiting"]) == (5, 0)


async def test_a_server_that_is_down_for_a_day_gets_all_of_it_afterwards(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    credential(tmp_path)
    receiver = Receiver()
    receiver.answer = reply(status=503)
    given_site = MadeUpNetwork(answer=receiver)
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, MadeSteps(), given_site)
        async with keeping(given) as keeper:
            await keeper.add(SECOND.replace("1s", "10m") + HOOK, "w")
            await trio.sleep(12 * 3600)
            document = keeper.get("w").deliveries[0].progress_map()
            assert document["waiting"] == 71
            assert "answered with status 503" in document["problem"]
            assert receiver.tried < 80
        # Over a restart too.
        async with keeping(given) as keeper:
            await trio.sleep(12 * 3600)
            receiver.answer = reply(status=204).replace(b" 204 ", b" 200 ")
            await trio.sleep(1800)
            count = keeper.get("w").runner.history.head.number
            assert count > 140
            assert [it["number"] for it in receiver.taken] == list(range(1, count + 1))
            assert len(set(receiver.ids)) == count


async def test_what_waits_is_bounded_by_what_is_kept(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    credential(tmp_path)
    receiver = Receiver()
    receiver.answer = reply(status=500)
    site = MadeUpNetwork(answer=receiver)
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps(), site)) as keeper,
    ):
        await keeper.add("keep = 10\n" + SECOND.replace("1s", "1m") + HOOK, "w")
        await trio.sleep(3600)
        document = keeper.get("w").deliveries[0].progress_map()
        assert (document["waiting"], document["oldest"]) == (10, 50)
        assert len(entries(keeper)) == 10
        receiver.answer = reply(status=200)
        await trio.sleep(1000)
        numbers = [it["number"] for it in receiver.taken]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert numbers[0] > 50
        assert keeper.get("w").deliveries[0].progress_map()["waiting"] == 0


async def test_a_webhook_goes_where_a_fetch_may_go_and_no_further(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    credential(tmp_path)
    receiver = Receiver()
    receiver.answer = moved("https://127.0.0.1/")
    site = MadeUpNetwork(answer=receiver)
    site.names["inside.example.org"] = [["10.0.0.7"]]
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps(), site)) as keeper,
    ):
        text = SECOND.replace("1s", "1m")
        await keeper.add(text + HOOK, "moved")
        await keeper.add(text + HOOK.replace("hooks.", "inside."), "inside")
        for url in ("http://localhost/", "http://host:8080/", "https://a.example.org:22/"):
            with pytest.raises(InputError, match="is not fetched"):
                await keeper.add(text + HOOK.replace("http://hooks.example.org/in", url), "bad")
        await trio.sleep(100)
        told = {it: keeper.get(it).deliveries[0].progress_map()["problem"] for it in keeper.running}
        assert "status 302" in told["moved"]
        assert "10.0.0.7 is a private network" in told["inside"]
        assert {host for host, _ in site.connected} == {"93.184.216.34"}


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (None, 0o600, "no credential 'hook'"),
        (SECRET, 0o644, "others may use it"),
        ("whsec_!", 0o600, "goes on in base64"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_told_at_once(
    text: str | None, mode: int, said: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    if text is not None:
        credential(tmp_path, text, mode)
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps())) as keeper,
    ):
        with pytest.raises((InputError, StoreUnusable), match=said):
            await keeper.add(SECOND + HOOK, "w")
        assert not keeper.running


def test_a_secret_without_the_prefix_is_the_key_itself() -> None:
    assert key_of("words") == b"words"
    assert key_of(SECRET) == bytes(range(24))


async def test_a_file_has_each_result_once_also_where_writing_was_cut_off(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    path, random = tmp_path / "out.jsonl", Random(3)
    text = f'{SECOND}[[to]]\nkind = "file"\npath = "{path}"\n'
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, MadeSteps())
        async with keeping(given) as keeper:
            await keeper.add(text, "w")
        for _ in range(20):
            with trio.move_on_after(random.uniform(0.5, 4)):
                async with keeping(given):
                    await trio.sleep_forever()
            data = path.read_bytes() if path.exists() else b""
            # As if the disk had the last line only in part.
            path.write_bytes(data[: len(data) - random.randrange(0, 100)])
            lines = path.read_bytes().count(b"\n")
            assert lines >= data.count(b"\n") - 1
        async with keeping(given) as keeper:
            await trio.sleep(3)
            count = keeper.get("w").runner.history.head.number
    numbers = [json.loads(it)["number"] for it in path.read_text().splitlines()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == count


def line(number: int, feed: str = "f") -> bytes:
    return json.dumps({"feed": feed, "number": number}).encode()


def test_a_file_that_is_not_this_workflows_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    ResultFile(path, "f").add(1, line(1))
    ResultFile(path, "f").add(1, line(1))
    ResultFile(path, "f").add(3, line(3))
    assert path.read_bytes() == line(1) + b"\n" + line(3) + b"\n"
    with pytest.raises(InputError, match="results of another workflow"):
        ResultFile(path, "g").add(4, line(4, "g"))
    path.write_text("dear diary\n")
    with pytest.raises(InputError, match="other lines than results"):
        ResultFile(path, "f").add(4, line(4))
    assert path.read_text() == "dear diary\n"
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StoreUnusable, match="is a link"):
        ResultFile(link, "f").add(4, line(4))
    with pytest.raises(InputError, match="cannot be written"):
        ResultFile(tmp_path / "gone" / "f", "f").add(4, line(4))
    with pytest.raises(InputError, match="cannot be written"):
        ResultFile(tmp_path, "f").add(4, line(4))
