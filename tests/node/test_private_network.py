"""A private network of whole peers: its owner invites, tasks are answered, a member is removed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.commands.cli_peer import join_command
from node.commands.join import announce
from node.commands.join_typed import config_typed
from node.commands.members import begin_private, read_invite
from node.commands.narrating import narrate
from node.config import NodeConfig
from node.local.commands import LocalCommands
from node.local.control import unheard
from node.local.member_commands import members_called
from node.local.settings import settings_of
from node.peer import Node
from node.private_network import belonging
from p2p.member_rows import OwnMembership, keep_own, own_membership
from store import open_memory_store, open_store
from tests.node.asking import asked, request, texts_of, vectors_of
from tests.node.engines import Counted, Stuck
from tests.node.network import I, Network, V, open_network
from tests.p2p.transports import until
from tests.wire.samples import BY_NAME, KEY, OTHER_KEY
from wire.errors import BatonError, InputError
from wire.invite_token import read_token, write_token
from wire.kinds import Level
from wire.membership import Invite
from wire.signed import sign

INVITE = BY_NAME["Invite"]
assert isinstance(INVITE, Invite)
LINE = write_token(sign(INVITE, KEY), OTHER_KEY.seed)


async def typed(node: Node, command: str, **arguments: Any) -> dict[str, Any]:
    return await LocalCommands(node).commands()[command](arguments, unheard)


@asynccontextmanager
async def owned(folder: Path) -> AsyncIterator[tuple[Network, Node]]:
    """A network whose first peer, which takes its time, is the owner of a private one."""
    async with open_network(folder) as network, open_memory_store(quota_bytes=1 << 26) as store:
        await keep_own(store, OwnMembership(network.key(0).peer, "home"))
        yield network, await network.add(I, V, store=store, engine=Counted())


async def invited(
    network: Network, owner: Node, *roles: Any, engine: Counted | None = None, **terms: Any
) -> Node:
    made = await typed(owner, "invite", **terms)
    return await network.add(*roles, invite=read_token(made["line"]), engine=engine)


async def test_members_answer_each_others_tasks_until_one_is_removed(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with owned(tmp_path) as (network, owner):
        bob = await invited(network, owner, I, V, label="bob")
        ann = await invited(network, owner, V, label="ann")
        announce(owner, as_json=False)
        assert "invite another machine with: python -m node invite" in capsys.readouterr().out
        announce(ann, as_json=False)
        assert "python -m node invite" not in capsys.readouterr().out
        answered, _ = await asked(ann, request(verifiers=2, needed=1))
        assert answered.output
        told = await typed(owner, "members")
        assert {it["label"] for it in told["members"]} == {"", "ann", "bob"}
        assert all(it["connected"] or it["me"] for it in told["members"])
        listed = (await typed(owner, "invite_list"))["invites"]
        assert {it["state"] for it in listed} == {"used"}
        assert all("baton1" not in str(it) for it in listed)
        await typed(owner, "members_remove", peer=str(bob.peers.me))
        await until(lambda: bob.peers.me not in ann.peers.connected(), 30)
        status = await typed(owner, "status")
        assert status["membership"]["owner"] is True
        await until(lambda: not bob.peers.members.as_map()["member"], 120)  # type: ignore[union-attr]
        with trio.move_on_after(1):
            await narrate(bob)
        assert "no member of home: the owner of this network" in capsys.readouterr().out
        for command in ("invite", "members_remove"):
            with pytest.raises(InputError, match="only the owner"):
                await typed(ann, command, peer=str(bob.peers.me))


async def test_who_lacks_a_verifier_is_told_what_lets_one_in(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with owned(tmp_path) as (network, owner):
        bob = await invited(network, owner, I, label="bob")
        await network.settled()
        for node, first in ((owner, "or print an invite: "), (bob, "owner print an invite: ")):
            ask = {"model": "hash", "text": "a", "needed": 2, "verifiers": 2, "deadline_s": 60}
            with pytest.raises(InputError, match="nothing was asked") as refused:
                await typed(node, "ask", **ask)
            assert f"{first}python -m node invite > FILE" in refused.value.todo
            assert "join --invite-file FILE --role verify --model hash" in refused.value.todo


async def test_a_member_is_removed_by_its_label_or_the_end_of_its_key(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with owned(tmp_path) as (network, owner):
        bob = await invited(network, owner, V, label="bob")
        ann = await invited(network, owner, V, label="ann")
        await network.settled()
        stranger = str(network.key(99).peer)
        for wrong in (stranger, stranger[-6:], "carl", ""):
            with pytest.raises(InputError, match=r"no member is called|missing"):
                await typed(owner, "members_remove", peer=wrong)
        # Whom another one may have admitted is barred, though this peer never met it.
        await typed(owner, "invite", uses=2, admitters=[str(owner.peers.me), str(ann.peers.me)])
        found = await typed(owner, "members_remove", peer=stranger)
        assert (found["peer"], found["known"]) == (stranger, False)
        for called, node in (("bob", bob), (ann.peers.me.short, ann)):
            found = await typed(owner, "members_remove", peer=called)
            assert (found["peer"], found["known"]) == (str(node.peers.me), True)
        rows = (await typed(owner, "members"))["members"]
        assert {it["label"] for it in rows if it["removed"]} == {"", "ann", "bob"}


async def test_what_others_admitted_by_an_invite_counts_in_its_owners_list(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with owned(tmp_path) as (network, owner):
        ann = await invited(network, owner, V, label="ann")
        await network.settled()
        made = await typed(owner, "invite", uses=1, admitters=[str(ann.peers.me)])

        async def row() -> dict[str, Any]:
            listed = (await typed(owner, "invite_list"))["invites"]
            return next(it for it in listed if it["id"] == made["id"])

        # The owner has no use of its own to give, and one is left all the same.
        assert ((await row())["state"], (await row())["used_by"]) == ("open", [])
        bob = await network.add(V, invite=read_token(made["line"]))
        await network.settled()
        assert ((await row())["state"], (await row())["used_by"]) == ("used", [str(bob.peers.me)])


def test_what_two_members_are_called_names_neither_alone() -> None:
    labels = {"12D3KooWaaaaXXXXXX": "bob", "12D3KooWbbbbXXXXXX": "bob", "12D3KooWccccYYYYYY": ""}
    assert len(members_called("bob", labels)) == 2
    assert len(members_called("XXXXXX", labels)) == 2
    assert members_called("…YYYYYY", labels) == ["12D3KooWccccYYYYYY"]
    assert members_called("aaaaXXXXXX", labels) == ["12D3KooWaaaaXXXXXX"]
    # A letter is no name, nor is nothing.
    assert members_called("Y", labels) == members_called("", labels) == []


async def test_a_task_that_a_removed_member_has_is_answered_by_another(tmp_path: Path) -> None:
    async with owned(tmp_path) as (network, owner):
        stuck = Stuck()
        bob = await invited(network, owner, I, engine=stuck, label="bob")
        ann = await invited(network, owner, label="ann")
        answers: dict[str, Answered] = {}

        async def ask(text: str) -> None:
            wanted = request(data=texts_of(text), verifiers=0, needed=0, level=Level.SIGNED)
            answers[text], _ = await asked(ann, wanted)

        with trio.fail_after(60.0):
            async with trio.open_nursery() as nursery:
                # Of two that could have it one is drawn.
                while not stuck.began.is_set():
                    text = f"text {len(nursery.child_tasks) + len(answers)}"
                    nursery.start_soon(ask, text)
                    with trio.move_on_after(0.3):
                        await stuck.began.wait()
                await typed(owner, "members_remove", peer=str(bob.peers.me))
        assert answers[text].output == vectors_of(text)
        assert stuck.calls == 1
        # Who was slow may have been answered for by another before its removal was heard of.
        with trio.fail_after(60.0):
            while bob.peers.me in ann.peers.connected():
                await trio.sleep(0.02)


async def test_an_invite_is_given_on_terms_that_make_sense_or_not_at_all(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with owned(tmp_path) as (_, owner):
        made = await typed(owner, "invite", uses=3, for_s=3600, roles=6, label="lab")
        assert made["roles"] == ["infer", "verify"]
        assert made["line"].startswith("baton1")
        for wrong in (
            {"uses": 0},
            {"uses": 10_000},
            {"uses": "many"},
            {"for_s": 1},
            {"for_s": 10**12},
            {"label": "x" * 40},
            {"label": "a\nb"},
            {"admitters": ["nobody"]},
            {"admitters": [str(KEY.peer)]},
            {"admitters": [str(owner.peers.me)] * 9, "uses": -1},
        ):
            with pytest.raises(InputError):
                await typed(owner, "invite", **wrong)
        for wrong_id in ("", "zz", made["id"] + "0"):
            with pytest.raises(InputError):
                await typed(owner, "invite_revoke", id=wrong_id)
        await typed(owner, "invite_revoke", id=made["id"][:6])
        assert (await typed(owner, "invite_list"))["invites"][0]["state"] == "revoked"


async def test_a_peer_of_an_open_network_is_told_how_a_private_one_begins(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        peer = await network.add(V)
        with pytest.raises(InputError, match="--private"):
            await typed(peer, "invite")


def test_no_view_of_the_settings_tells_the_secret_of_an_invite(tmp_path: Path) -> None:
    config = NodeConfig(state=tmp_path, invite=read_token(LINE))
    told = str(settings_of(config))
    for secret in (OTHER_KEY.seed.hex(), str(OTHER_KEY.seed), LINE):
        assert secret not in told


def joined(*words: str) -> NodeConfig:
    """The configuration of a peer that is started with these words."""
    return config_typed(join_command, join_command.make_context("join", list(words)).params, None)


def test_settings_that_nobody_typed_are_not_said_to_be_typed() -> None:
    config = joined()
    told = {it["name"]: it for it in settings_of(config)}
    assert {it["name"] for it in told.values() if it["origin"] != "default"} == {"peers.listen"}
    assert told["peers.listen"]["origin"] == "start"
    assert told["private"]["value"] == "False"
    belongs = replace(config, peers=replace(config.peers, network="12D3KooW"), lan=False)
    told = {it["name"]: it for it in settings_of(belongs, private=True)}
    assert (told["private"]["value"], told["private"]["origin"]) == ("True", "membership")
    assert told["peers.network"]["origin"] == "membership"
    assert told["lan"]["origin"] == "command line"


def test_what_was_typed_is_said_to_be(tmp_path: Path) -> None:
    words = ("--state", str(tmp_path), "--quota", "1GB", "--no-lan", "--port", "4747", "--http")
    config = joined(*words, "127.0.0.1:9", "--http-verdicts", "1/2", "--memory", "8GB")
    told = {it["name"] for it in settings_of(config) if it["origin"] == "command line"}
    assert told == {
        *("state", "quota_bytes", "lan", "peers.listen", "roles", "guest.memory_bytes"),
        *("gateway.port", "gateway.needed", "gateway.verifiers"),
    }
    assert not any(it["name"].startswith("untyped") for it in settings_of(config))


def test_a_user_without_a_home_has_settings_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the user of a service."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    told = {it["name"]: it["origin"] for it in settings_of(joined("--state", str(tmp_path)))}
    assert told["state"] == "command line"


async def test_a_folder_belongs_to_one_private_network_for_good(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await begin_private("home", state, bytes, as_json=True)
    for name in ("home", "other"):
        with pytest.raises(InputError, match="belongs to the private network 'home'"):
            await begin_private(name, state, bytes, as_json=True)
    for name in ("", "x" * 40, "a\nb"):
        with pytest.raises(InputError, match="one line"):
            await begin_private(name, tmp_path / "new", bytes, as_json=True)
    async with open_store(state, quota_bytes=1 << 26) as store:
        assert own_membership(store) is not None
        given = (read_token(LINE)[0], OTHER_KEY)
        with pytest.raises(InputError, match="give another folder"):
            belonging(NodeConfig(state=state, invite=given), KEY, store)


async def test_a_peer_that_was_to_be_private_never_starts_an_open_network(tmp_path: Path) -> None:
    async with open_memory_store(quota_bytes=1 << 26) as store:
        config = NodeConfig(state=tmp_path, private=True)
        with pytest.raises(InputError, match="no member of a private network yet"):
            belonging(config, KEY, store)
        config = NodeConfig(state=tmp_path, invite=read_token(LINE))
        found, private = belonging(config, OTHER_KEY, store)
        assert private is not None
        assert found.peers.network == str(KEY.peer)
        assert found.peers.bootstraps == (f"/ip4/45.1.0.10/tcp/4747/p2p/{KEY.peer}",)


def test_an_invite_comes_from_a_line_a_file_or_a_credential_and_is_never_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "invite"
    file.write_text(LINE + "\n")
    file.chmod(0o644)
    for typed_lines, named, credential in (
        ((LINE,), None, None),
        ((), file, None),
        ((), None, file),
        ((), file, tmp_path / "none"),
    ):
        given, spoken = read_invite(typed_lines, named, credential)
        assert spoken
        assert given is not None
        assert given[0].record == INVITE
    said = capsys.readouterr().err
    assert "lists this machine's processes" in said
    assert "chmod 600" in said
    assert LINE not in said
    assert read_invite((), None, None) == (None, False)
    assert read_invite((), tmp_path / "gone", None) == (None, True)
    for content in (b"", b"\xff" * 9, b"baton1" + b"a" * 100_000):
        file.write_bytes(content)
        with pytest.raises(BatonError):
            read_invite((), file, None)
    # What was named by mistake may be a file that others have to read.
    assert "chmod" not in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be read"):
        read_invite((), tmp_path, None)
    with pytest.raises(InputError, match="one invite"):
        read_invite((LINE, LINE), None, None)
    # A service was told of one that is there no more: it needs it no more either.
    file.write_text("gone")
    assert read_invite((), None, file) == (None, True)
    with pytest.raises(InputError):
        read_invite((), file, None)
    for encoding in ("utf-16", "utf-8-sig"):
        file.write_text(LINE + "\r\n", encoding=encoding)
        given, _ = read_invite((), file, None)
        assert given is not None
