"""What a leg costs: as it is typed, at most before, and exactly by its receipt."""

from pathlib import Path

import pytest

from node.config import NodeConfig
from node.paying.bill import Bill, Held
from node.paying.pricing import LegUnits, cost, cost_of_leg, cost_of_part, units_at_most
from node.paying_config import SERVICES, TypedPrice, read_prices, read_relay_pay_max
from p2p.peers import PeersConfig
from tests.node.asking import EMBED, MODEL, TEXTS, complete, receipt_of, task_of
from wire.amount import AMOUNT_MAX
from wire.content import ContentId
from wire.errors import InputError, Malformed
from wire.generation import Ending, Token, to_frame
from wire.kinds import Role
from wire.operations import GENERATE
from wire.signed import Signed, sign
from wire.signing import SigningKey
from wire.tariff import UNITS, ChargeKind, ModelPrice, Tariff
from wire.task import Stage

WORKER, OTHER = SigningKey(bytes(31) + b"\1"), SigningKey(bytes(31) + b"\2")
GENERATION = Stage(role=Role.INFER, operation=GENERATE, model=MODEL, parameters={"tokens": 8})


def tariff_of(base: int = 0, given: int = 0, made: int = 0, **changes: int) -> Signed[Tariff]:
    models = (ModelPrice(model=MODEL, base=base, given=given, made=made),)
    fields = {"verdict": 0, "increment": 1000} | changes
    return sign(Tariff(network=ContentId.of(b"net"), models=models, **fields), WORKER)


def answer_of(tokens: int, prompt_tokens: int) -> bytes:
    token = Token(id=1, text=b"a", logprob_millionths=None, top=())
    ending = Ending(reason="stop", prompt_tokens=prompt_tokens, tokens=tokens, text_bytes=tokens)
    return to_frame(token) * tokens + to_frame(ending)


@pytest.mark.parametrize(
    ("typed", "price"),
    [
        ("m=0.3/1k:0.6/1k", TypedPrice(0, 300_000 * 1000, 600_000 * 1000)),
        ("m=1/1m:2.5/1m", TypedPrice(0, 1_000_000, 2_500_000)),
        ("m=0/1k:0.000001/1k+0.001", TypedPrice(1000, 0, 1000)),
        ("m=0.3/1k:0+0.001", TypedPrice(1000, 300_000 * 1000, 0)),
        ("a=b=0/1k:0/1k", TypedPrice(0, 0, 0)),
        ("relay=0.01/1m", TypedPrice(0, 10_000, 0)),
    ],
)
def test_prices_are_read_as_they_are_typed(typed: str, price: TypedPrice) -> None:
    assert read_prices([typed], "0.001").models == {typed.rpartition("=")[0]: price}
    assert read_prices([typed], "0.001").check == 1000


@pytest.mark.parametrize(
    "typed",
    [
        "m", "m=", "=1/1k:1/1k", "m=1:1", "m=1/1k", "m=-1/1k:1/1k",
        "m=1e3/1k:1/1k", "m=nan/1k:1/1k",
        "m=0.0000001/1k:1/1k", "m=9999999999999/1k:1/1k", "m=1/2k:1/1k", "m=1/1k:1/1k+",
        "m=1/1k:1+1", "data=1/1k:0", "relay=1/1m:0", "relay=1/1m+0.1", "relay=1",
        "m=1..2/1k:1/1k", "m=٣/1k:1/1k",
    ],
)  # fmt: skip
def test_what_is_no_price_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(InputError) as refused:
        read_prices([typed], None)
    name = typed.partition("=")[0]
    assert name not in SERVICES or f"--price {name}=" in str(refused.value.todo)


def test_what_relays_are_paid_at_most_is_read_in_credits() -> None:
    assert [read_relay_pay_max(it) for it in (None, "0", "0.01", "2")] == [0, 0, 10_000, 2_000_000]
    for typed in ("x", "-1", "1/1m", "0.0000001"):
        with pytest.raises(InputError):
            read_relay_pay_max(typed)


def test_who_is_no_relay_asks_for_nothing_as_one(tmp_path: Path) -> None:
    prices = read_prices(["relay=0.01/1m"], None)
    assert NodeConfig(state=tmp_path, prices=prices).prices == prices
    with pytest.raises(InputError, match="is no relay"):
        NodeConfig(state=tmp_path, prices=prices, peers=PeersConfig(relays=False))


def test_a_fraction_of_a_millionth_is_rounded_up_once() -> None:
    tariff = tariff_of(base=5, given=1, made=1).record
    assert cost(tariff, EMBED, LegUnits(1, 0)) == 6
    assert cost(tariff, EMBED, LegUnits(UNITS, UNITS)) == 7
    assert cost(tariff, EMBED, LegUnits(0, 0)) == 5
    assert cost(tariff_of(base=AMOUNT_MAX).record, EMBED, LegUnits(1, 1)) == AMOUNT_MAX
    other = Stage(role=Role.INFER, operation="embed", model=ContentId.of(b"x"), parameters={})
    assert cost(tariff, other, LegUnits(9, 9)) == 0


def test_the_charge_is_for_what_the_output_has_whatever_the_receipt_says() -> None:
    tariff = tariff_of(base=7, given=UNITS, made=UNITS).record
    task = task_of(OTHER, 1e9, GENERATION)
    source, output = b"x" * 100, answer_of(tokens=3, prompt_tokens=20)
    for units, charged in ((3, 7 + 20 + 3), (8, 7 + 20 + 3), (2**40, 7 + 20 + 3), (2, 7 + 20 + 2)):
        receipt = receipt_of(task, WORKER, output, units=units).record
        assert cost_of_leg(tariff, GENERATION, receipt, source, output) == charged
    # A prompt has no more tokens than bytes, whatever the ending says.
    output = answer_of(tokens=3, prompt_tokens=2**40)
    receipt = receipt_of(task, WORKER, output, units=3).record
    assert cost_of_leg(tariff, GENERATION, receipt, source, output) == 7 + 100 + 3
    for bad in (b"", b"t", b"e\0\1\xc1", output[:-1]):
        assert cost_of_leg(tariff, GENERATION, receipt, source, bad) <= 7 + 3
    embedded = receipt_of(task_of(OTHER, 1e9), WORKER, b"v", units=2**40).record
    assert cost_of_leg(tariff, EMBED, embedded, TEXTS, b"v") == 7 + 3


def test_a_leg_is_never_charged_more_than_was_said_before() -> None:
    tariff = tariff_of(base=1, given=UNITS // 2, made=3 * UNITS).record
    for stage, source, output in (
        (GENERATION, b"y" * 50, answer_of(8, 2**30)),
        (complete(5), b"text", b"abcde"),
        (EMBED, TEXTS, b"v"),
    ):
        most = cost(tariff, stage, units_at_most(stage, source))
        receipt = receipt_of(task_of(OTHER, 1e9, stage), WORKER, output, units=2**50).record
        assert cost_of_leg(tariff, stage, receipt, source, output) <= most


def test_tokens_that_another_peer_showed_are_its_own_and_a_base_is_charged_once() -> None:
    tariff = tariff_of(base=10, made=UNITS)
    task, output = task_of(OTHER, 1e9, complete(8)), b"12345678"
    receipt = receipt_of(task, WORKER, output, units=8).record
    bill = Bill(1000)
    bill.note_given(OTHER.peer, Held(tariff, 0, complete(8)))
    bill.show(OTHER.peer, 5)
    assert bill.part(OTHER.peer) == 5 == cost_of_part(tariff.record, complete(8), 5)
    bill.note_given(WORKER.peer, Held(tariff, 0, complete(8), begun=5))
    assert bill.leg(WORKER.peer, receipt, b"", output) == 10 + 3
    assert [(it.kind, it.units) for it in bill.charges] == [
        (ChargeKind.PART, 5),
        (ChargeKind.LEG, 5),
    ]
    # Nothing is charged twice, and nothing for what nobody was given.
    assert bill.leg(WORKER.peer, receipt, b"", output) == 0
    assert bill.part(OTHER.peer) == 0


def test_a_receipt_of_more_units_than_its_leg_has_costs_no_more_than_was_expected() -> None:
    # The input is not at hand: it is too large for an offer, and its units are known.
    tariff, bill = tariff_of(given=UNITS), Bill(10_000)
    receipt = receipt_of(task_of(OTHER, 1e9), WORKER, b"v", units=4096).record
    bill.note_given(
        WORKER.peer,
        Held(tariff, 0, EMBED, most=cost(tariff.record, EMBED, units_at_most(EMBED, None, 200))),
    )
    assert bill.leg(WORKER.peer, receipt, None, None) == 200


def test_who_makes_again_what_others_showed_wrong_is_paid_for_it() -> None:
    tariff = tariff_of(made=UNITS)
    receipt = receipt_of(task_of(OTHER, 1e9, complete(8)), WORKER, b"12345678", units=8).record
    bill = Bill(1000)
    bill.note_given(WORKER.peer, Held(tariff, 0, complete(8), begun=5))
    bill.void_parts(2)
    assert bill.leg(WORKER.peer, receipt, b"", b"12345678") == 6


def test_all_charges_together_stay_within_what_the_task_may_cost() -> None:
    tariff, bill = tariff_of(base=60, verdict=30), Bill(100)
    receipt = receipt_of(task_of(OTHER, 1e9), WORKER, b"v").record
    bill.note_given(WORKER.peer, Held(tariff, 0, EMBED))
    assert bill.leg(WORKER.peer, receipt, TEXTS, b"v") == 60
    assert [bill.check(tariff, 0, EMBED) for _ in range(3)] == [30, 10, 0]
    assert (bill.charged, bill.left) == (100, 0)


def test_an_output_computed_before_costs_less() -> None:
    tariff = tariff_of(base=10).record
    fresh = receipt_of(task_of(OTHER, 1e9), WORKER, b"v").record
    reused = receipt_of(task_of(OTHER, 1e9), WORKER, b"v", reused=True).record
    assert cost_of_leg(tariff, EMBED, fresh, TEXTS, b"v") == 10
    assert cost_of_leg(tariff, EMBED, reused, TEXTS, b"v") == 3


def test_a_tariff_names_each_model_once_in_order() -> None:
    prices = [ModelPrice(model=ContentId.of(it), base=1, given=0, made=0) for it in (b"a", b"b")]
    prices.sort(key=lambda it: it.model, reverse=True)
    for models in (tuple(prices), (prices[0], prices[0])):
        with pytest.raises(Malformed):
            Tariff(network=ContentId.of(b"n"), models=models, verdict=0, increment=1)
