"""Whether a task of this peer's owner or its gateway can be checked, told before it is sent.

Else it would be done, wait for verifiers that do not come, and be lost at its deadline.
"""

import trio

from node.asking.run import TaskRequest
from node.checking.enough import Prospect, TooFewCanCheck, prospect_of
from node.peer import Node
from p2p.score import Standing
from p2p.timeouts import stretched
from wire.content import PeerId
from wire.kinds import Level, Role
from wire.task import Stage

# Whoever began with this peer is believed to have told of itself within this.
SETTLED_S = 10.0
SEEK_S = 3.0
LOOK_S = 0.25


async def makers_that_can_be_checked(
    node: Node, request: TaskRequest, stage: Stage, called: str = ""
) -> frozenset[PeerId]:
    """Who is to answer so that enough are left to check it; empty for anybody.

    TooFewCanCheck where nobody is, as far as this peer knows its network; not while there are new
    neighbours that have not told what they do: one that keeps it back is waited for once. `called`
    is the model as it was typed.
    """
    needed = request.needed
    if request.level in (Level.SIGNED, Level.SPOT_CHECKED):
        return frozenset()
    found = _prospect(node, stage)
    silent = frozenset[PeerId]()
    if found.most < needed:
        silent = _silent(node)
        now_at_s = trio.current_time()
        until_at_s = max(now_at_s + stretched(SEEK_S), node.started_at_s + stretched(SETTLED_S))
        with trio.move_on_at(until_at_s):
            while (found := _prospect(node, stage)).most < needed:
                # It finds nothing where another task has just begun to seek the same.
                await node.peers.seek(Role.VERIFY, stage.model, deadline_s=stretched(SEEK_S))
                await trio.sleep(LOOK_S)
    if found.most >= needed:
        return found.makers(needed)
    if found.left and not _silent(node) - silent:
        name = "" if stage.model is None else node.models.name_of(stage.model)
        called = called or name or str(stage.model)
        raise TooFewCanCheck(found.most, needed, called, node.peers.joining())
    return frozenset()


def _prospect(node: Node, stage: Stage) -> Prospect:
    peers, checking = node.peers, node.tasks.checking
    playing = node.leg_server.dispatcher.directory.playing(stage)
    makers = {it.signer for it in playing if peers.standing(it.signer) is not Standing.BANNED}
    owners = checking.owners()
    return prospect_of(makers, checking.verifiers(stage.model), peers.me, owners.owner_of)


def _silent(node: Node) -> frozenset[PeerId]:
    """Who is connected and has not told what it does."""
    view = node.peers.view
    return frozenset(it for it in node.peers.connected() if view.advert_of(it) is None)
