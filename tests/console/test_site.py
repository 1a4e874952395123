"""The console over HTTP: who comes in, what it shows, what its buttons do, what it bears."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.console.facts import FactSource
from node.console.live import WATCHERS_MAX
from node.console.rendering import parts_of
from node.console.server import open_console
from node.console_config import ConsoleConfig
from node.gateway.keys import add_key, keys_file
from node.local.control import unheard
from tests.console.served import serving
from tests.node.asking import asked, request
from wire.errors import InputError, Refused
from wire.kinds import Level

CHANGES = ("/pause", "/resume", "/leave", "/doctor", "/signout")
PAGES = ("/", "/peers", "/state", "/events")
EVIL = "https://evil.example"
# A thousand come in `tests.bench console`.
CROWD = 50


async def test_a_link_lets_a_browser_in_and_what_it_gets_is_well_guarded(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        await console.enter()
        page = await console.ask("GET", "/")
        assert page.status == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        # Nothing in the page that the policy would bar, and nothing of elsewhere.
        assert "<script>" not in page.text
        assert "style=" not in page.text
        assert " on" not in page.text.partition("<body>")[0]
        assert "http://" not in page.text.replace(console.url, "")
        for name in ("/console.css", "/console.js", "/console.svg"):
            assert (await console.ask("GET", name, {"Cookie": None})).status == 200
        # The cookie is of no use to scripts, nor to other sites.
        link = (await console.commands["console-link"]({}, unheard))["url"]
        target = link.removeprefix(console.url.rstrip("/"))
        # What shows a link may look at it before the browser follows it.
        assert "set-cookie" not in (await console.ask("HEAD", target)).headers
        told = (await console.ask("GET", target)).headers["set-cookie"]
        assert "HttpOnly" in told
        assert "SameSite=Strict" in told
        assert (await console.ask("GET", target)).status == 401
        # Here nobody comes in by a key, and codes are not guessed.
        assert (await console.ask("POST", "/enter", body=b"key=sk-baton-x")).status == 403
        tried = [(await console.ask("GET", f"/enter?code={it}")).status for it in range(30)]
        assert set(tried[:2]) == {401}
        assert tried[-1] == 429


async def test_hostile_requests_are_told_why_and_change_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        await console.enter()
        stolen = {"Cookie": console.cookie[:-1] + "x"}
        changes: list[tuple[int, dict[str, str | None]]] = [
            (403, {"Host": "evil.example"}),
            (403, {"Host": f"evil.example:{console.host.rpartition(':')[2]}"}),
            (403, {"Host": ""}),
            (403, {"Origin": EVIL}),
            (403, {"Origin": "null"}),
            (403, {"Sec-Fetch-Site": "cross-site"}),
            (403, {"Sec-Fetch-Site": "same-site"}),
            (401, {"Cookie": None}),
            (401, stolen),
            (401, {"Cookie": f"{console.cookie}; {console.cookie}"}),
        ]
        for status, changed in changes:
            for target in PAGES:
                found = await console.ask("GET", target, changed)
                assert found.status == status, (target, changed)
                assert console.token not in found.text
            for target in CHANGES:
                found = await console.ask("POST", target, changed)
                assert found.status == status, (target, changed)
                assert found.message
        writes: list[dict[str, str | None]] = [
            {"Origin": None},
            {"X-Baton-Token": None},
            {"X-Baton-Token": ""},
            {"X-Baton-Token": "0" * 64},
            {"X-Baton-Token": console.cookie.partition("=")[2]},
        ]
        for changed in writes:
            for target in CHANGES:
                assert (await console.ask("POST", target, changed)).status == 403
        # A link of some page that a person follows changes nothing either.
        for target in CHANGES:
            assert (await console.ask("GET", target)).status == 405
        assert (await console.ask("DELETE", "/pause")).status == 405
        assert (await console.ask("GET", "/../key")).status == 404
        assert (await console.ask("GET", "/static/console.css")).status == 404
        assert not console.node.leg_server.paused
        assert not console.node.leave_asked.is_set()
        assert (await console.ask("GET", "/")).status == 200


async def test_the_buttons_pause_go_on_and_leave(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        await console.enter()
        node = console.node
        assert (await console.ask("POST", "/pause")).status == 200
        assert node.leg_server.paused == "its owner paused it"
        # What the machine's rules say is another matter, and neither undoes the other.
        node.pause("it runs on its battery")
        node.pause("")
        assert node.leg_server.paused == "its owner paused it"
        node.pause("it runs on its battery")
        found = await console.ask("POST", "/resume")
        assert "it runs on its battery" in found.message
        assert node.leg_server.paused == "it runs on its battery"
        node.pause("")
        assert (await console.ask("POST", "/resume")).message == "It goes on."
        assert not node.leg_server.paused
        assert (await console.ask("POST", "/leave")).status == 200
        assert node.leave_asked.is_set()
        assert (await console.ask("POST", "/signout")).status == 200
        assert (await console.ask("GET", "/")).status == 401


async def test_changes_come_as_they_happen_and_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as console, trio.open_nursery() as nursery:
        await console.enter()
        async with console.events() as events:
            assert await events.begin() == 200
            assert b"text/event-stream" in events.head
            first = await events.next()
            assert "takes work" in first["parts"]["controls"]
            # The one that applies is offered, and not the other.
            assert "/pause" in (switch := first["parts"]["switch"])
            assert "/resume" not in switch
            assert "peer-0" in first["parts"]
            nursery.start_soon(console.ask, "POST", "/pause")
            later = await events.next()
            while "controls" not in later["parts"]:
                later = await events.next()
            assert "its owner paused it" in later["parts"]["controls"]
            assert "/resume" in (switch := later["parts"]["switch"])
            assert "/pause" not in switch
            assert later["version"] > first["version"]
            # What stayed as it was is not sent again.
            assert "peer-7" not in later["parts"]
            assert len(later["parts"]) < len(first["parts"]) / 4
        assert console.node.status_sources["console"]()["watchers"] <= 1
        # The causes of trouble are looked at once for whoever watches, and again when asked.
        assert console.examined == 1
        assert "make &lt;b&gt;room&lt;/b&gt;" in (await console.ask("GET", "/")).text


async def test_a_task_is_shown_with_why_each_peer_was_chosen(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        await asked(console.node, request(needed=0, verifiers=0, level=Level.SIGNED))
        await console.enter()
        found = await console.commands["routes"]({}, unheard)
        (task,) = found["tasks"]
        (chosen,) = task["decisions"][-1]["peers"]
        assert chosen["part"] == "chosen"
        assert chosen["peer"] == str(console.network.nodes[1].peers.me)
        page = (await console.ask("GET", "/")).text
        assert f"task …{task['task'][-6:]}" in page
        assert f"…{chosen['peer'][-6:]}" in page


async def test_no_more_watch_than_may_and_a_crowd_costs_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as console, trio.open_nursery() as nursery:
        await console.enter()
        up: list[int] = []

        async def watch() -> None:
            async with console.events() as events:
                up.append(await events.begin())
                if up[-1] == 200:
                    await trio.sleep_forever()

        for _ in range(WATCHERS_MAX):
            nursery.start_soon(watch)
        with trio.fail_after(60):
            while up.count(200) < WATCHERS_MAX:
                await trio.sleep(0.01)
        async with trio.open_nursery() as wave:
            for _ in range(CROWD):
                wave.start_soon(watch)
        assert up.count(200) == WATCHERS_MAX
        assert up.count(503) == CROWD
        # A page can still be loaded, and says what is the matter.
        assert '"full": true' in (await console.ask("GET", "/state")).text
        nursery.cancel_scope.cancel()


async def test_peers_are_listed_by_pages_and_many_who_ask_cost_one_look(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        await console.enter()
        other = console.network.nodes[1].peers.me
        assert f"…{str(other)[-6:]}" in (await console.ask("GET", "/peers")).text
        for page in ("1", "999999999999", "-1", "x", "9" * 100, "%00"):
            found = await console.ask("GET", f"/peers?page={page}")
            assert found.status == 200, page
        mark = 'name="version" content="'
        before = (await console.ask("GET", "/")).text
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(console.ask, "GET", "/")
        after = (await console.ask("GET", "/")).text
        first, last = (int(it.partition(mark)[2].partition('"')[0]) for it in (before, after))
        # The clock of a busy machine may pass a few looks by.
        assert last - first < 20


async def test_who_does_not_read_delays_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        await console.enter()
        # It asks, and reads nothing: what the system holds for it is all that it costs.
        slow = await console.connect()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        head = f"GET /events HTTP/1.1\r\nHost: {console.host}\r\n"
        await slow.send_all(f"{head}Cookie: {console.cookie}\r\n\r\n".encode())
        async with console.events() as events:
            assert await events.begin() == 200
            seen = [(await events.next())["version"] for _ in range(2)]
        assert seen == sorted(set(seen))
        await slow.aclose()


async def test_other_machines_come_in_with_a_key_alone(tmp_path: Path) -> None:
    everywhere = ConsoleConfig(host="0.0.0.0", port=0)
    # The first peer of a network has this folder.
    file = keys_file(tmp_path / "0")
    secret = add_key(file, "phone", 600, lambda size: b"k" * size, 0.0)
    async with serving(tmp_path, everywhere) as console:
        console.url = console.url.replace("0.0.0.0", "127.0.0.1")
        stranger = console.network.nodes[1]
        with pytest.raises(InputError, match="no API key"):
            async with open_console(stranger, everywhere, {}, console.examine):
                pass
        assert 'name="key"' in (await console.ask("GET", "/")).text
        for tried in (b"key=wrong", b"key=", b"", b"key=" + b"x" * 10_000):
            found = await console.ask("POST", "/enter", body=tried)
            assert found.status in (401, 429)
        with trio.fail_after(60):
            while (
                found := await console.ask("POST", "/enter", body=f"key={secret}".encode())
            ).status == 429:
                await trio.sleep(0.2)
        assert found.status == 303
        console.cookie = found.headers["set-cookie"].partition(";")[0]
        assert (await console.ask("GET", "/")).status == 200
        assert (await console.ask("POST", "/enter", {"Origin": EVIL})).status == 403


def test_the_console_is_at_an_address_of_this_machine() -> None:
    for host, port in (("example.org", 1), ("127.0.0.1", 65536), ("", 1)):
        with pytest.raises(InputError):
            ConsoleConfig(host=host, port=port)
    assert ConsoleConfig(host="::1").loopback
    assert not ConsoleConfig(host="0.0.0.0").loopback


async def test_a_command_that_fails_once_leaves_the_next_looks_whole(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        source, sound = FactSource(console.commands, console.examine), console.commands["receipts"]

        async def fails(_arguments: object, _emit: object) -> dict[str, object]:
            raise Refused("the store is busy")

        console.commands["receipts"] = fails
        with pytest.raises(Refused):
            await source.look()
        console.commands["receipts"] = sound
        assert (await source.look()).receipts["receipts"] == []


async def test_a_network_goes_by_its_name_and_what_was_earned_says_for_what(tmp_path: Path) -> None:
    async with serving(tmp_path) as console:
        facts = await FactSource(console.commands, console.examine).look()
    status = {**facts.status, "network": "bafkreihse5o3usoi5", "ledger": {"name": "<home>"}}
    noted = [{"line": "a call failed", "s_ago": 190, "times": 4}]
    paid = {"charged": 7_000, "relayed": 5_000}
    sums = [
        {"for": "relay", "name": "", "model": None, "charged": 2_000_000},
        {"for": "model", "name": "minilm", "model": "bafk", "charged": 500_000},
        {"for": "model", "name": "minilm", "model": "bafk", "charged": 500_000},
    ]
    earnings = {"charged": 3_000_000, "redeemed": 1, "unredeemed": 2, "lost": 0, "paid": paid}
    parts = parts_of(
        replace(facts, status=status | {"noted": noted}, earnings=earnings | {"sums": sums})
    )
    assert 'in <b title="bafkreihse5o3usoi5">&lt;home&gt;</b>, up for' in parts["headline"]
    assert "3 credits: 2 for relay, 1 for minilm</dd>" in parts["earnings"]
    assert "0.007 credits, of it 0.005 for what relays passed on" in parts["earnings"]
    assert "<b>3 min ago</b> a call failed (4 times)" in parts["problems"]
    # Nothing is drawn of work where there was none.
    assert "units/s" not in parts["work"]
