"""More members are bad than a ledger bears: its honest ones stop, and their peers go on."""

from dataclasses import replace
from pathlib import Path

import trio
from trio.testing import MockClock

from node.ledger.epoch_end import EpochEnd
from node.ledger.member_role import LedgerMember
from node.ledger.wallet import OrderState
from tests.ledger.made import ONE, Made
from tests.ledger.test_members import genesis_of, ledger_of, start
from tests.node.network import open_network
from wire.checkpoint import AgreementPhase, AgreementVote, Proposal, Seal, buckets_of
from wire.ledger import order_digest
from wire.signed import sign
from wire.signing import SigningKey


def decided_wrongly(member: LedgerMember, bad: list[SigningKey]) -> list[bytes]:
    """What bad members sign for an end that no orders lead to."""
    replica = member.replica
    empty = buckets_of(())
    header = replace(replica.outcome(()).header, state=bytes(32))
    by_place = {replica.committee.index[it.peer]: it for it in bad}
    number = min(by_place)
    seals = [
        sign(Seal(network=replica.network, epoch=0, count=0, buckets=empty), it).raw for it in bad
    ]
    proposal = Proposal(
        network=replica.network,
        epoch=0,
        round=number,
        header=header.to_bytes(),
        seals=tuple(seals),
        valid_round=None,
        prevotes=None,
    )
    vote = AgreementVote(
        network=replica.network,
        epoch=0,
        round=number,
        phase=AgreementPhase.PRECOMMIT,
        header=header.id,
    )
    return [sign(proposal, by_place[number]).raw, *(sign(vote, it).raw for it in bad)]


async def test_a_quorum_that_decides_nonsense_ends_a_membership_and_not_the_peer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        honest = await start(network, genesis, 0)
        member = ledger_of(honest).member
        assert member is not None
        for raw in decided_wrongly(member, [network.key(number) for number in (1, 2, 3)]):
            member.end.receive(raw)
        await member._act()
        await trio.sleep(100)
        assert "a quorum has decided" in ledger_of(honest).statistics()["problem"]
        assert member.replica.epoch == 0


def test_who_leads_waits_where_the_seals_of_a_quorum_are_not_complete() -> None:
    made = Made()
    leader, end = made.replicas[0], EpochEnd(made.replicas[0])
    second = made.order(ONE, sequence=1)
    leader.learn(made.certificate(second, members=(1, 2, 3)))
    named = [order_digest(second)]
    buckets = buckets_of(named)
    leader.lists.note(named, made.keys[1].peer)
    for key in made.keys[1:]:
        seal = Seal(network=made.genesis.id, epoch=0, count=1, buckets=buckets)
        end.receive(sign(seal, key).raw)
    assert end.agreement is not None
    assert end.agreement.round == 0
    assert not end._proposals.signed


async def test_an_owner_who_asks_while_an_epoch_is_being_written_is_paid_out_all_the_same(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        nodes = [await start(network, genesis, number) for number in range(4)]
        members = [it for it in (ledger_of(node).member for node in nodes) if it is not None]
        payer = await start(network, genesis, 4)
        await trio.sleep(10)
        for member in members[:3]:
            member.replica.writing = True

        async def written() -> None:
            await trio.sleep(3)
            for member in members[:3]:
                member.replica.writing = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(written)
            wallet = ledger_of(payer).wallet
            paid = await wallet.pay(network.key(0).peer, 1000, lambda _: None)
        assert paid.state is OrderState.SETTLED
