"""`audit`: what this peer's own answers show of another peer, or of a model."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands.audit import words
from node.local.receipt_commands import ReceiptCommands
from node.peer import Node
from p2p.score import Standing
from tests.asking.test_rechecking import Turncoat
from tests.node.asking import MODEL, asked, request, texts_of
from tests.node.network import I, S, V, open_network
from wire.errors import InputError
from wire.kinds import Level


async def audited(node: Node, whose: object) -> dict[str, Any]:
    return await ReceiptCommands(node).audit({"whose": str(whose)}, [].append)


async def test_shares_are_counted_by_leg_and_verifier(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(I, S)
        asker = await network.start(S)
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        for number in range(3):
            await asked(asker, request(data=texts_of(f"checked {number}")))
        wanted = request(data=texts_of("unchecked"), level=Level.SIGNED)
        await asked(asker, wanted)
        found = await audited(asker, worker.peers.me)
        assert (found["answers_read"], found["legs"], found["checked"]) == (4, 4, 3)
        assert found["checked_share"] == 0.75
        assert (found["found_wrong"], found["suspect"], found["caught_at_ms"]) == (0, 0, None)
        assert sum(it["agreed"] for it in found["verifiers"]) >= 6
        assert not any(it["against"] for it in found["verifiers"])
        by_model = await audited(asker, MODEL)
        assert by_model["legs"] == 4
        assert "4 legs, 75% checked: 3 before" in "\n".join(words(found))
        # A verifier did no leg, but gave verdicts.
        verifier = await audited(asker, network.nodes[-1].peers.me)
        assert verifier["legs"] == 0
        assert verifier["checked_share"] is None
        assert verifier["gave"]["agreed"] >= 1
        # Who answers somebody else is not known here; a stranger's word is never read.
        assert (await audited(worker, worker.peers.me))["legs"] == 0
        for wrong in ("", "no-such-model", "12D3KooW"):
            with pytest.raises(InputError):
                await audited(asker, wrong)


async def test_who_was_caught_is_named_and_its_past_doubted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        engine = Turncoat(lies=False)
        liar = await network.start(I, S, engine=engine)
        await network.settled()
        await asked(asker, request(data=texts_of("before"), level=Level.SIGNED))
        for _ in range(3):
            await network.start(V, S)
        await network.start(I, S)
        await network.settled()
        engine.lies = True
        while asker.peers.standing(liar.peers.me) is not Standing.BANNED:
            await asked(asker, request(data=texts_of(f"asked at {trio.current_time()}")))
        found = await audited(asker, liar.peers.me)
        assert found["caught_at_ms"] is not None
        assert "caught lying" in "\n".join(words(found))
        assert found["suspect"] + found["checked_later"] >= 1
        # The honest past is checked again and holds.
        with trio.fail_after(120):
            while (await audited(asker, liar.peers.me))["suspect"]:
                await trio.sleep(1)
        later = await audited(asker, liar.peers.me)
        assert (later["found_wrong"], later["checked_later"]) == (0, 1)
