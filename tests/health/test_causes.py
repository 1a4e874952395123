"""Each cause is found, alone and by its name; on a sound machine there is nothing to find."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from node.health.examining import CAUSES, examine, is_sound
from node.health.facts import (
    CallEnd,
    CallFacts,
    Facts,
    ResourceFacts,
    RouterFacts,
    ServiceFacts,
    ToolFacts,
)
from node.health.finding import State
from tests.health.sound import ADDRESS, OTHER, WALL_S, facts, membership, reach, status
from wire import limits


def found(seen: Facts) -> dict[str, State]:
    """What is not in order, by name."""
    wrong = (State.WARN, State.BAD)
    return {it.name: it.state for it in examine(seen) if it.state in wrong}


def part(name: str, **changed: Any) -> Callable[[], Facts]:
    """A sound machine of which one group of facts differs."""
    return lambda: facts(**{name: replace(getattr(facts(), name), **changed)})


def peer(**changed: Any) -> Callable[[], Facts]:
    return lambda: facts(peer=status(**changed))


def called(*ended: CallEnd) -> Callable[[], Facts]:
    calls = tuple(
        CallFacts(address=address, ended=it)
        for address, it in zip((ADDRESS, OTHER), ended, strict=True)
    )
    return lambda: facts(calls=calls)


def large(address: str, *, arrive: bool) -> CallFacts:
    return CallFacts(address=address, ended=CallEnd.ANSWERED, large_arrive=arrive)


def stopped(**changed: Any) -> Callable[[], Facts]:
    """No peer runs, and so its port and folder are free."""
    free = {
        "port": replace(facts().port, taken=False),
        "state": replace(facts().state, locked_by=0),
    }
    return lambda: facts(**({"peer": None, "settings": None, "peers": None} | free | changed))


def cause_of(name: str) -> str:
    """The cause, which a machine may have in several ways: "clock, of 1970"."""
    return name.partition(",")[0]


KEPT = {"how": "kept", "keepers": ["a", "b"], "seen_at": ["45.0.0.7"], "addresses": []}
KEEPERS = tuple({"peer": it, "addresses": [ADDRESS]} for it in "ab")
CAUSED: dict[str, tuple[Callable[[], Facts], State]] = {
    "folder-in-use": (stopped(state=replace(facts().state, locked_by=99)), State.BAD),
    "same-key": (peer(same_key_elsewhere=True), State.BAD),
    "clock": (peer(clock_wrong_s=-300.0), State.BAD),
    "clock, of 1970": (lambda: facts(wall_s=300.0), State.BAD),
    "clock, of 1970, of a peer that does not run": (stopped(wall_s=300.0), State.BAD),
    "clock, of 2100": (lambda: facts(wall_s=WALL_S * 2.3), State.BAD),
    "clock, that went back": (part("state", newest_wall_s=WALL_S + 900 * 86_400), State.BAD),
    "disk": (part("state", free_bytes=1 << 20), State.BAD),
    "disk, with no byte left": (part("state", free_bytes=0, writable=False), State.BAD),
    "disk, with no file left": (part("state", free_files_share=0.0, writable=False), State.BAD),
    "folder-modes": (part("state", mode=0o755), State.BAD),
    "folder-version": (part("state", version="baton state 99"), State.BAD),
    "folder-damaged": (
        stopped(state=replace(facts().state, locked_by=0, damage="state/key is gone")),
        State.BAD,
    ),
    "memory": (part("resources", available_bytes=100 << 20), State.BAD),
    "limits": (part("resources", open_files_max=1024), State.WARN),
    "compiler": (
        lambda: facts(tools=ToolFacts(compiler="", compiler_problem="no clang")),
        State.BAD,
    ),
    "gpu": (
        lambda: facts(
            tools=ToolFacts(
                compiler="clang", gpu_nodes=("/dev/nvidia0",), missing_libraries=("libcuda.so.1",)
            )
        ),
        State.WARN,
    ),
    "heat": (part("resources", on_battery=True), State.WARN),
    "metered": (part("resources", metered=True), State.WARN),
    "starved": (part("resources", pressure={"cpu": 0.1, "memory": 0.6}), State.WARN),
    "port-taken": (stopped(port=facts().port), State.WARN),
    "port-taken, and join was told to use it": (
        stopped(port=replace(facts().port, named=True)),
        State.BAD,
    ),
    "no-route": (part("network", default_interfaces=()), State.BAD),
    "no-name": (called(CallEnd.NO_NAME, CallEnd.ANSWERED), State.WARN),
    "no-peer-there": (called(CallEnd.ANSWERED, CallEnd.NO_PEER), State.WARN),
    "bootstrap-refuses": (called(CallEnd.REFUSED, CallEnd.REFUSED), State.BAD),
    "malformed-address": (called(CallEnd.MALFORMED, CallEnd.ANSWERED), State.WARN),
    "bootstrap-silent": (called(CallEnd.SILENT, CallEnd.ANSWERED), State.WARN),
    "wrong-key": (called(CallEnd.WRONG_PEER, CallEnd.ANSWERED), State.WARN),
    "network-refuses": (peer(unmet="another network"), State.BAD),
    "no-member": (peer(membership=membership(member=False, removed=True)), State.BAD),
    "two-routers": (
        lambda: facts(router=RouterFacts(asked="a", answers=True, external="192.168.0.2")),
        State.WARN,
    ),
    "behind-carrier": (
        lambda: facts(router=RouterFacts(asked="a", answers=True, external="100.70.1.2")),
        State.WARN,
    ),
    "mapping-dead": (peer(reach=reach(mapping={"state": "dead", "why": "said"})), State.WARN),
    "mapping-taken": (peer(reach=reach(mapping={"state": "taken", "why": "said"})), State.WARN),
    "firewall": (part("network", barred_by="ufw"), State.WARN),
    "loopback-only": (peer(addresses=["/ip4/127.0.0.1/tcp/4747/p2p/me"]), State.WARN),
    "bridge-announced": (
        peer(reach=reach(addresses=["/ip4/172.17.0.1/tcp/4747", "/ip4/192.168.1.5/tcp/4747"])),
        State.WARN,
    ),
    "wrong-source": (peer(reach=reach(addresses=["/ip4/10.9.9.9/tcp/4747"])), State.WARN),
    "ipv6-barred": (peer(reach=reach(seen_at=["2001:db8::7"])), State.WARN),
    "tunnel": (part("network", default_interfaces=("wg0",)), State.WARN),
    "keepers-of-one": (lambda: facts(peer=status(reach=KEPT), peers=KEEPERS), State.WARN),
    "connections-cut": (peer(connections_cut_after_s=300.0), State.WARN),
    "large-packets": (
        lambda: facts(calls=(large(ADDRESS, arrive=True), large(OTHER, arrive=False))),
        State.WARN,
    ),
    "adverts-refused": (
        peer(adverts={"heard": 30, "refused": {"full": 9, "version": 21}}),
        State.WARN,
    ),
    "seen-by-nobody": (peer(answered_last_minute=0), State.BAD),
    "model": (peer(models=[{"name": "m", "problem": "its numbers are NaN"}]), State.BAD),
    "paused": (peer(paused="the schedule"), State.WARN),
    "service": (lambda: facts(service=ServiceFacts(found=True, result="watchdog")), State.BAD),
    "linger": (
        lambda: facts(service=ServiceFacts(found=True, for_user=True, enabled=True, lingers=False)),
        State.BAD,
    ),
    "open-gateway": (
        lambda: facts(settings={"peers.bootstraps": ADDRESS, "gateway.host": "0.0.0.0"}),
        State.BAD,
    ),
    "idle": (peer(legs_done=0, checks_done=0), State.WARN),
    "old-release": (peer(neighbour_versions=[limits.SPOKEN_VERSION + 1] * 3), State.WARN),
}
# These come with others: whoever has no way in, or whose ports are barred, has several causes.
TOGETHER: dict[str, tuple[Callable[[], Facts], set[str]]] = {
    "port-blocked": (
        called(CallEnd.SILENT, CallEnd.SILENT),
        {"port-blocked", "bootstrap-silent"},
    ),
    "invite-ended": (
        peer(membership=membership(member=False, problem="this invite was used already")),
        {"no-member", "invite-ended"},
    ),
    "behind-router": (peer(reach=reach(how="alone")), {"behind-router", "no-keeper"}),
    "no-keeper": (peer(reach=reach(how="alone")), {"behind-router", "no-keeper"}),
    "silent-router": (
        lambda: facts(
            peer=status(reach=reach(how="alone")), router=RouterFacts(asked="a", answers=False)
        ),
        {"silent-router", "behind-router", "no-keeper"},
    ),
}


def test_on_a_sound_machine_nothing_is_found() -> None:
    assert found(facts()) == {}
    assert is_sound(examine(facts()))


def test_every_cause_is_made_here() -> None:
    names = [it.name for it in CAUSES]
    assert len(set(names)) == len(names)
    assert {*map(cause_of, CAUSED)} | TOGETHER.keys() == set(names)


@pytest.mark.parametrize("name", CAUSED)
def test_a_cause_is_found_alone_and_by_its_name(name: str) -> None:
    made, state = CAUSED[name]
    assert found(made()) == {cause_of(name): state}
    finding = next(it for it in examine(made()) if it.name == cause_of(name))
    assert finding.seen
    assert finding.advice
    assert is_sound(examine(made())) == (state is State.WARN)


@pytest.mark.parametrize("name", TOGETHER)
def test_a_cause_that_has_others_with_it_is_found(name: str) -> None:
    made, names = TOGETHER[name]
    assert set(found(made())) == names


def test_a_disk_without_room_is_told_from_one_that_cannot_be_written() -> None:
    said = {}
    for name, seen in {
        "full": {"free_bytes": 8192},
        "no room for more files": {"free_files_share": 0.0},
        "cannot be written": {},
    }.items():
        made = part("state", writable=False, **seen)()
        said[name] = next(it for it in examine(made) if it.name == "disk")
    assert all(name in it.seen for name, it in said.items())
    assert said["full"].advice.startswith("df -h")
    assert said["no room for more files"].advice.startswith("df -i")


def test_a_clock_that_nothing_sets_is_set_by_hand() -> None:
    resources = replace(facts().resources, clock_synchronized=None)
    findings = examine(facts(wall_s=300.0, resources=resources))
    finding = next(it for it in findings if it.name == "clock")
    assert "in the year 1970, before this program was written" in finding.seen
    assert finding.advice == "date -s 'YYYY-MM-DD hh:mm'"


def test_without_a_peer_and_without_any_look_nothing_is_guessed() -> None:
    blind = Facts(
        port=replace(facts().port, taken=None),
        state=replace(
            facts().state,
            is_own=None,
            version=None,
            damage=None,
            locked_by=None,
            free_bytes=None,
            mode=None,
        ),
        network=replace(facts().network, default_interfaces=None, outgoing=(), barred_by=None),
        resources=ResourceFacts(),
        tools=ToolFacts(),
    )
    told = {it.state for it in examine(blind) if it.name != "gpu"}
    assert told == {State.UNKNOWN}


def test_a_name_that_tells_of_no_peers_is_bad_only_while_nobody_is_met() -> None:
    told = {"found": 0, "refused": {}, "problem": "the name does not exist", "asked": 3}
    fine = told | {"found": 2, "problem": ""}
    settings = {"peers.bootstraps": "", "peers.seed_names": "seeds.test"}
    for row, connected, state in (
        (told, 0, State.BAD),
        (told, 2, State.WARN),
        (fine, 2, State.UNKNOWN),
        (told | {"asked": 0}, 0, State.UNKNOWN),
    ):
        peer = status(seeds={"seeds.test": row}, connected=connected, unmet="")
        findings = examine(facts(peer=peer, settings=settings, calls=()))
        finding = next(it for it in findings if it.name == "no-name")
        assert finding.state is state
        if row is told:
            assert finding.seen == "no seed at seeds.test: the name does not exist"
            assert finding.advice == "dig TXT seeds.test"


def test_a_stopped_peer_on_a_sound_machine_is_no_trouble() -> None:
    assert found(stopped()()) == {}
