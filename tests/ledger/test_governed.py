"""What a motion or a ballot needs to know is out of the books that the peer follows anyway."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from node.commands.governed import bond_now, only_one, whole_id
from node.ledger import following
from node.local.commands import LocalCommands
from node.local.control import open_control
from node.local.govern_commands import GovernCommands
from tests.ledger.test_members import CREDIT, epoch, genesis_of, ledger_of, start, unheard
from tests.node.network import open_network
from wire.errors import InputError
from wire.motion import Motion, Parameter, ParameterChange

MOTION = Motion(
    title="less for the fund",
    why="it has enough",
    epochs=100,
    bond=CREDIT,
    change=ParameterChange(parameter=Parameter.GROWTH, value=20_000),
    grant=None,
)


async def test_a_peer_asks_members_only_for_what_has_ended_since(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    fetch = following.fetch_epoch

    async def counting(*arguments: object) -> object:
        asked.append(1)
        return await fetch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(following, "fetch_epoch", counting)
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=1)
        member, other = [await start(network, genesis, number) for number in (0, 1)]
        govern = GovernCommands(other)
        assert await govern.governed({}, unheard) == {"motions": [], "cases": [], "bond": CREDIT}
        made = await govern.propose({"motion": MOTION.to_bytes()}, unheard)
        await epoch(member, 8)
        other.config.state.mkdir(parents=True, exist_ok=True)
        async with open_control(other.config.socket, LocalCommands(other).commands()):
            assert await bond_now(other.config.state) == 2 * CREDIT
            asked.clear()
            name = made["motion"]
            assert await whole_id(other.config.state, name[:8], "motion") == bytes.fromhex(name)
            # Nothing has ended since, so one question is all; the whole id needs none.
            assert len(asked) == 1
            await whole_id(other.config.state, name, "motion")
            assert len(asked) == 1
            with pytest.raises(InputError, match="names no case"):
                await whole_id(other.config.state, name[:8], "case")
        # A member has the books itself.
        asked.clear()
        assert (await GovernCommands(member).governed({}, unheard))["motions"] == [name]
        assert not asked
        assert ledger_of(member).member is not None


def test_the_beginning_of_an_id_has_to_name_one() -> None:
    names = [bytes.fromhex("aabb" + "0" * 60), bytes.fromhex("aabc" + "0" * 60)]
    assert only_one("AABB", names, "motion") == names[0]
    for typed, why in (("aab", "names 2 motions"), ("ffff", "no motion"), ("aabb"[:3], "2 motion")):
        with pytest.raises(InputError, match=why):
            only_one(typed, names, "motion")
