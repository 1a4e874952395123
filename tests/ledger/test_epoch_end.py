"""How one member sees an epoch end: what was decided can be carried out by who judged it."""

from itertools import count

from node.ledger.epoch_end import EpochEnd
from tests.ledger.made import ONE, THREE, TWO, Made
from wire.checkpoint import bucket_of
from wire.ledger import AccountOrder, Payment, order_digest
from wire.signed import Signed
from wire.signing import SigningKey

BUCKET = 7


def in_one_bucket(made: Made, key: SigningKey) -> Signed[AccountOrder]:
    """An order of this account that lies in BUCKET."""
    to = TWO if key is not TWO else ONE
    for amount in count(1000):
        order = made.order(key, pay=(Payment(to=to.peer, amount=amount),))
        if bucket_of(order_digest(order)) == BUCKET:
            return order
    raise AssertionError("numbers do not end")


def test_an_epoch_ends_whose_orders_were_in_no_seal_together() -> None:
    made = Made()
    orders = [in_one_bucket(made, it) for it in (ONE, TWO, THREE)]
    named = [order_digest(it) for it in orders]
    certificates = [made.certificate(it) for it in orders]
    ends = [EpochEnd(it) for it in made.replicas]
    # Each member has had the certificate of another one, until all have sealed.
    for place, replica in enumerate(made.replicas):
        for order in orders:
            replica.vote(order)
        replica.confirm(certificates[place % 3])
    for end in ends:
        end.seal_now()
    for replica in made.replicas:
        for at, raw in enumerate(certificates):
            replica.learn(raw)
            replica.lists.note(named[at : at + 1], made.keys[at].peer)
    while told := [raw for end in ends for raw in end.take().signed]:
        for end in ends:
            for raw in told:
                end.receive(raw)
    for replica, end in zip(made.replicas, ends, strict=True):
        assert len(replica.applied) == 1
        assert end.checkpoint is not None
        assert end.orders() == tuple(sorted(named))
        assert not replica.broken
        replica.turn(end.checkpoint, tuple(sorted(named)))
        assert replica.epoch == 1
