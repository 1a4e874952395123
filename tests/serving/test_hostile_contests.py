"""Contests by an asker that means ill: they cost their asker its stream, and the peer goes on."""

from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.node.asking import receipt_of, task_of
from tests.node.network import Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire.dispute import Committed, Contest
from wire.errors import TransportError
from wire.kinds import Role
from wire.operations import CALL
from wire.task import Stage


def contest_of(asker: Outsider, stage: Stage, **task: Any) -> Contest:
    """A contest of one leg that the asker made up together with a friend."""
    signed = task_of(asker.key, asker.peers.environment.wall_s(), stage, **task)
    leg = receipt_of(signed, key_of("friend"), b"output")
    return Contest(
        task=signed.raw,
        receipts=(leg.raw,),
        input=None,
        output=None,
        row=None,
        deadline_ms=20_000,
    )


async def test_a_call_that_no_model_did_ends_its_stream_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        verifier = await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            stage = Stage(role=Role.DATA, operation=CALL, model=None, parameters={})
            # The second time it is asked it is still there.
            for _ in range(2):
                async with asker.peers.call(verifier.peers.me, deadline_s=20) as call:
                    await call.send(contest_of(asker, stage))
                    with pytest.raises(TransportError):
                        await call.expect(Committed)
