"""How many copies there are, by what peers give and not by what they say; and more of them."""

from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from node.asking.copies import Copies
from node.local.content_commands import ContentCommands
from node.peer import Node
from p2p.score import Offence, Standing
from p2p.typed_call import TypedCall, refusal_of
from store import open_memory_store
from tests.node.network import I, Network, S, open_network
from wire import limits
from wire.errors import InputError, Malformed, Refused
from wire.kinds import RefusalCode
from wire.message import BlockReply, Keep, Keeping, Message, Want
from wire.tree import name_of, split
from wire.unixfs import file_id

BLOB = Random(1).randbytes(2 << 20)
NAME = name_of(BLOB)
WEEK_S = limits.KEEP_S_MAX


async def owner_and_keepers(network: Network, count: int) -> tuple[Node, list[Node]]:
    """A peer that has the content, and others that could keep it."""
    owner = await network.start(S)
    await owner.dependencies.store.put(BLOB, pin="put")
    keepers = [await network.start(S) for _ in range(count)]
    await network.settled()
    return owner, keepers


async def made(owner: Node, wanted: int) -> Copies:
    return await owner.copying.make(NAME, len(BLOB), wanted)


async def test_copies_are_made_and_found_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        owner, keepers = await owner_and_keepers(network, 4)
        assert (await owner.copying.find(NAME)).count == 1
        copies = await made(owner, 3)
        assert (copies.count, copies.refusals) == (3, {})
        wall_s = owner.dependencies.environment.wall_s()
        for peer, until_wall_s in copies.holders.items():
            (keeper,) = [it for it in keepers if it.peers.me == peer]
            assert await keeper.dependencies.store.get(NAME) == BLOB
            assert until_wall_s is not None
            assert wall_s + WEEK_S - 60 < until_wall_s <= wall_s + WEEK_S
        found = await owner.copying.find(NAME)
        assert found.holders == dict.fromkeys(copies.holders)
        # The same again makes no further copy: it is the ones there are that are prolonged.
        assert (await made(owner, 3)).holders.keys() == copies.holders.keys()
        # And they outlive the peer that had them made.
        network.kill(owner)
        newcomer = await network.start(S)
        await network.settled()
        assert await newcomer.blobs.get(NAME, deadline_s=60, size_bytes_max=1 << 30) == BLOB


async def test_if_there_are_too_few_peers_it_says_how_many_and_why(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, _ = await owner_and_keepers(network, 1)
        unwilling = await network.start(I, S)
        unwilling.keep_role.willing = False
        async with open_memory_store(quota_bytes=8 << 20) as store:
            small = await network.start(S, store=store)
            await network.settled()
            copies = await made(owner, 4)
            assert copies.count == 2
            assert copies.refusals.keys() == {unwilling.peers.me, small.peers.me}
            assert "keeps nothing for others" in copies.refusals[unwilling.peers.me]
            assert "at most" in copies.refusals[small.peers.me]
            network.kill(small)


async def test_who_has_it_and_promises_nothing_counts_as_long_as_it_has_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, (holder, other) = await owner_and_keepers(network, 2)
        holder.keep_role.willing = other.keep_role.willing = False
        await holder.dependencies.store.put(BLOB)
        copies = await made(owner, 2)
        assert copies.holders == {holder.peers.me: None}
        assert copies.count == 2


async def test_who_lies_about_keeping_is_not_counted_and_another_is_asked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, (honest,) = await owner_and_keepers(network, 1)

        async def says_so(call: TypedCall, _: Message) -> None:
            await call.send(Keeping(keep_s=WEEK_S))

        async def garbage(call: TypedCall, _: Message) -> None:
            await call.send(BlockReply(data=b"not what was asked for"))

        async with network.outsider(S) as liar, network.outsider(S) as worse:
            liar.answer(Keep, says_so)
            worse.answer(Keep, says_so)
            worse.answer(Want, garbage)
            copies = await made(owner, 4)
            assert list(copies.holders) == [honest.peers.me]
            assert copies.refusals[liar.peers.me] == (
                "it says that it keeps this, and gives no block of it"
            )
            # Wrong bytes are an offence; what is not there is none.
            cost = owner.peers.scores.cost
            assert cost(worse.peers.me, trio.current_time()) > 0
            assert not cost(liar.peers.me, trio.current_time())
            assert not cost(honest.peers.me, trio.current_time())


async def test_who_fetches_a_block_only_when_it_is_asked_for_it_is_not_counted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, _ = await owner_and_keepers(network, 0)
        async with network.outsider(S) as liar:

            async def says_so(call: TypedCall, _: Message) -> None:
                await call.send(Keeping(keep_s=WEEK_S))

            async def relays(call: TypedCall, message: Message) -> None:
                assert isinstance(message, Want)
                try:
                    async with liar.peers.call(owner.peers.me, deadline_s=10) as other:
                        await other.send(message)
                        data = (await other.expect(BlockReply)).data
                except Refused as error:
                    await call.send(refusal_of(error))
                else:
                    await call.send(BlockReply(data=data))

            liar.answer(Keep, says_so)
            liar.answer(Want, relays)
            copies = await made(owner, 2)
            assert (copies.count, list(copies.refusals)) == (1, [liar.peers.me])
            # It is given the content as anybody is, when it is not asked to show it.
            await liar.blobs.fetch(NAME, deadline_s=30)


async def test_who_holds_only_a_part_is_found_out(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, (part, _) = await owner_and_keepers(network, 2)
        *leaves, root = split(BLOB)
        for block in (root, *leaves[: len(leaves) // 2]):
            await part.dependencies.store.put_block(block)
        counted = [(await owner.copying.find(NAME)).count - 1 for _ in range(40)]
        # Half of the blocks: three drawn ones are all there once in eight times.
        assert 0 < sum(counted) < 14


async def test_peers_of_older_versions_are_served_and_counted_and_not_asked_to_keep(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner = await network.start(S)
        await owner.dependencies.store.put(BLOB, pin="put")
        olds = [await network.start(S) for _ in range(2)]
        heard: list[Message] = []

        async def unreadable(call: TypedCall, message: Message) -> None:
            heard.append(message)
            raise Malformed("not a message: a list of its kind and its fields")

        for old, speaks in zip(olds, (limits.PROTOCOL_VERSION, limits.ORDERS_VERSION), strict=True):
            old.peers.neighbours.speaks = speaks
            old.peers.handlers[Keep] = unreadable
        owner.peers.neighbours._versions.clear()
        await olds[0].dependencies.store.put(BLOB)
        await network.settled()
        copies = await made(owner, 3)
        # One of them has it, and that is told; the other is not asked what it cannot read.
        assert copies.holders == {olds[0].peers.me: None}
        assert "it speaks version 3, which keeps nothing" in copies.refusals[olds[1].peers.me]
        assert "it speaks version 2" in copies.refusals[olds[0].peers.me]
        assert not heard
        for old in olds:
            assert not old.peers.scores.cost(owner.peers.me, trio.current_time())
            await old.blobs.fetch(NAME, deadline_s=30)


async def test_a_peer_that_cannot_read_the_message_is_a_no(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, (keeper,) = await owner_and_keepers(network, 1)

        async def refuses(call: TypedCall, _: Message) -> None:
            # As a peer answers what it has no handler for.
            await call.send(refusal_of(Refused("what is that?", code=RefusalCode.OTHER)))

        keeper.peers.handlers[Keep] = refuses
        copies = await made(owner, 2)
        assert (copies.count, copies.refusals) == (1, {keeper.peers.me: "what is that?"})


async def test_banned_and_dead_peers_are_a_no_and_take_no_time_for_ever(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, (dead, banned, honest) = await owner_and_keepers(network, 3)
        network.kill(dead)
        while owner.peers.standing(banned.peers.me) is not Standing.BANNED:
            owner.peers.scores.note(banned.peers.me, Offence.MALFORMED, trio.current_time())
        with trio.fail_after(120):
            copies = await made(owner, 4)
        assert list(copies.holders) == [honest.peers.me]
        assert banned.peers.me not in copies.refusals


async def test_put_tells_the_copies_and_makes_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        owner, _ = await owner_and_keepers(network, 3)
        for data in (BLOB, b"small", b""):
            path = tmp_path / "file"
            path.write_bytes(data)
            commands = ContentCommands(owner)
            found = await commands.put({"path": str(path)}, [].append)
            assert (found["copies"], found["copies_wanted"], found["holders"]) == (1, 0, [])
            assert found["peers_looked_at"] == 3
            found = await commands.put({"path": str(path), "copies": 3}, [].append)
            assert (found["id"], found["size_bytes"]) == (str(file_id(data)), len(data))
            assert (found["copies"], found["refusals"]) == (3, [])
            assert all(it["until_wall_s"] for it in found["holders"])
        for wrong in (-1, 17, "3", None):
            with pytest.raises(InputError):
                await commands.put({"path": str(path), "copies": wrong}, [].append)
