"""A release of the protocol before this one, and this one, serve a network while all are upgraded.

The older one is taken from the history of this checkout, so it needs git; it runs with --soak.
"""

import io
import subprocess
import tarfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.live.command_line import ROOT, Peer, joined
from wire import limits

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
LANES = 3
# Between two upgrades so many tasks are answered.
ANSWERS = 20
# Where a peer listens, so that it is found again; below the ports that are given out.
PORT = 21_747
INFER = ("--role", "infer", "--role", "store", "--model", "hash")
VERIFY = ("--role", "verify", "--role", "store", "--model", "hash")
GATEWAY = ("--role", "gateway", "--role", "store", "--http-verdicts", "1/1")
PEERS = (GATEWAY, GATEWAY, INFER, INFER, VERIFY, VERIFY)


def git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True).stdout


def older_release(folder: Path) -> Path:
    """The tree before the commit that began to speak this version."""
    text = f"SPOKEN_VERSION = {limits.SPOKEN_VERSION}"
    asked = (
        "log",
        "--first-parent",
        "--reverse",
        f"-S{text}",
        "--format=%H",
        "--",
        "wire/limits.py",
    )
    try:
        first = git(*asked).decode().split()[0]
        data = git("archive", f"{first}^1")
    except (OSError, subprocess.CalledProcessError, IndexError):
        pytest.skip("the history of this checkout does not go back to the version before")
    with tarfile.open(fileobj=io.BytesIO(data)) as tree:
        tree.extractall(folder, filter="data")
    before = (folder / "wire" / "limits.py").read_text()
    assert f"SPOKEN_VERSION = {limits.SPOKEN_VERSION - 1}\n" in before
    return folder


class Load:
    """Lanes of tasks that go to either gateway; what was answered, and what failed."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        self._lanes = [threading.Thread(target=self._ask, args=(it,)) for it in range(LANES)]

    def __enter__(self) -> Self:
        for it in self._lanes:
            it.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for it in self._lanes:
            it.join(120)

    def _ask(self, lane: int) -> None:
        number = 0
        with httpx.Client(timeout=100) as client:
            while not self.over.is_set():
                number += 1
                body = {"model": "hash", "prompt": f"{lane} {number}", "max_tokens": 3}
                try:
                    # Whoever has two gateways asks the other one where one is upgraded.
                    answer = self._posted(client, body, number)
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answered += 1
                else:
                    self.failed.append(answer.text)

    def _posted(self, client: httpx.Client, body: object, number: int) -> httpx.Response:
        here, there = (f"http://127.0.0.1:{PORT + 10 + (number + it) % 2}" for it in (0, 1))
        try:
            answer = client.post(f"{here}/v1/completions", json=body)
            # One that has just begun knows no verifiers yet, and says 503.
            if answer.status_code != 503:
                return answer
        except httpx.TransportError:
            # It is down, or it left with the request in hand.
            pass
        return client.post(f"{there}/v1/completions", json=body)

    def until_more(self) -> None:
        wanted = self.answered + ANSWERS
        while self.answered < wanted and not self.failed:
            self.over.wait(0.1)


def test_all_peers_are_upgraded_one_by_one_under_load_and_no_task_fails(tmp_path: Path) -> None:
    older = {"PYTHONPATH": str(older_release(tmp_path / "older"))}
    with ExitStack() as stack:
        first: list[str] = []

        def start(number: int, extra: dict[str, str]) -> Peer:
            listen = ("--listen", f"/ip4/127.0.0.1/tcp/{PORT + number}")
            http = ("--http", f"127.0.0.1:{PORT + 10 + number}") if number < 2 else ()
            # The first one remembers the others when it comes back.
            words = (*(first if number else ()), *PEERS[number], *listen, *http)
            program = ("-P", "-m", "node")
            state = tmp_path / f"s{number}"
            return stack.enter_context(joined(state, *words, extra=extra, program=program))

        peers = []
        for number in range(len(PEERS)):
            peers.append(start(number, older))
            first[:] = [peers[0].address]
        for peer in peers:
            # It is really the older one.
            words = Path(f"/proc/{peer.process.pid}/environ").read_bytes()
            assert older["PYTHONPATH"].encode() in words
        with Load() as load:
            load.until_more()
            for number in range(len(PEERS)):
                assert peers[number].stop().code == 0
                peers[number] = start(number, {})
                load.until_more()
                assert load.failed == [], number
        assert load.failed == []
        assert load.answered >= ANSWERS * (len(PEERS) + 1)
        told = peers[2].ask("status", "--json").document["neighbour_versions"]
        assert set(map(int, told)) == {limits.SPOKEN_VERSION}, told
