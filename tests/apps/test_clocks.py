"""A gateway whose clock is a day off: who is revoked stays out, and nobody comes in for longer."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.apps.app_keys import KEY_AGAIN_S, AppKeys
from node.apps.own_apps import OwnApp, apps_file, revoke_key
from tests.apps.test_apps import DAY_S, Lent, lent, made, refusal
from tests.node.network import START_S
from wire.errors import Refused


def shifted(found: Lent, by_s: float) -> AppKeys:
    """The keys at the gateway, whose clock from now on is so far ahead."""
    there = found.gateway.peers.environment
    found.gateway.peers.environment = replace(there, wall_s=lambda: there.wall_s() + by_s)
    return AppKeys(found.gateway.peers)


@pytest.mark.parametrize("by_s", [-DAY_S, DAY_S])
async def test_a_revoked_key_is_refused_within_a_minute_by_whatever_clock(
    autojump_clock: MockClock, tmp_path: Path, by_s: float
) -> None:
    async with lent(tmp_path) as found:
        keys = shifted(found, by_s)
        secret = made(found.owner, OwnApp(name="reader", mode="open"))
        assert await keys.learn(secret)
        revoke_key(apps_file(found.owner.config.state), "reader", "ada", START_S)
        began_at_s = trio.current_time()
        while await refusal(keys, secret) is None:
            await trio.sleep(1)
        assert trio.current_time() <= began_at_s + 60


async def test_a_key_that_has_ended_by_its_owners_clock_comes_in_by_no_other(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with lent(tmp_path) as found:
        behind = shifted(found, -DAY_S)
        until = {"until_wall_s": int(found.owner.peers.environment.wall_s()) + 30}
        secret = made(found.owner, OwnApp(name="reader", mode="open"), **until)
        assert await behind.learn(secret)
        await trio.sleep(30 + KEY_AGAIN_S)
        with pytest.raises(Refused, match="has ended"):
            await behind.learn(secret)
        # One that is a day ahead takes no key for longer, but for shorter.
        ahead = shifted(found, 2 * DAY_S)
        later = {"until_wall_s": int(found.owner.peers.environment.wall_s()) + 3600}
        soon = made(found.owner, OwnApp(name="writer", mode="open"), **later)
        # The owner looks at its file once a second.
        await trio.sleep(2)
        with pytest.raises(Refused, match="has ended"):
            await ahead.learn(soon)
