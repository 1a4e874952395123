"""Who was found out is counted once, by the fault, and honest peers that were banned are told."""

from types import SimpleNamespace
from typing import Any

from trio.testing import MockClock

from node.devnet.caught import Caught
from node.devnet.faults import Fault
from p2p.score import Offence, Scores
from tests.p2p.transports import key_of
from wire.kinds import Role

LIAR, LAZY, HONEST, KILLED = range(4)


def peer(number: int, roles: set[Role], scores: Scores | None = None) -> Any:
    node = None
    if scores is not None:
        node = SimpleNamespace(peers=SimpleNamespace(scores=scores, doubts=Scores()))
    plan = SimpleNamespace(roles=roles)
    return SimpleNamespace(number=number, plan=plan, key=key_of(f"peer {number}"), node=node)


def fault(name: str, *numbers: int) -> Fault:
    return Fault(name=name, amount=0.2, at_s=0.0, for_s=1.0, peers=numbers, seed="")


async def test_the_caught_are_counted_by_what_they_did_and_stay_counted(
    autojump_clock: MockClock,
) -> None:
    scores = Scores()
    asker = peer(9, set(), scores)
    peers = [
        *(peer(LIAR, {Role.INFER}), peer(LAZY, {Role.VERIFY})),
        *(peer(HONEST, {Role.INFER, Role.VERIFY}), peer(KILLED, {Role.VERIFY}), asker),
    ]
    # Who infers only cannot be lazy in verifying.
    faults = [fault("liar", LIAR), fault("lazy_verifier", LAZY, LIAR), fault("kill", KILLED)]
    caught = Caught()
    caught.look([asker, peer(8, set())])
    assert caught.ratios(faults, peers) == {"liar": 0.0, "lazy_verifier": 0.0}
    scores.note(peers[LAZY].key.peer, Offence.WRONG_ANSWER, 0.0)
    scores.note(peers[HONEST].key.peer, Offence.SLOW, 0.0)
    caught.look([asker])
    assert caught.ratios(faults, peers) == {"liar": 0.0, "lazy_verifier": 1.0}
    assert caught.honest(faults, peers) == (0, 0)
    # Doubt is what strangers said, and no ban.
    asker.node.peers.doubts.note(peers[HONEST].key.peer, Offence.DOUBTED, 0.0)
    caught.look([asker])
    assert caught.honest(faults, peers) == (0, 1)
    # A ban that wears off was one all the same.
    asker.node.peers.scores = Scores()
    caught.look([asker])
    assert caught.ratios(faults, peers)["lazy_verifier"] == 1.0
    for number in (HONEST, KILLED):
        caught.banned.add(peers[number].key.peer)
    assert caught.honest(faults, peers) == (2, 1)
