"""Vouchers name the models that they pay for; a payee takes none that names what it did not do."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from node.ledger.model_registry import MODEL
from node.paying.channels import EarningChannel, PaidChannel
from node.paying.charge_shares import shares_map
from tests.node.asking import asked
from tests.node.network import open_network
from tests.paying.test_hostile_payments import ONE, TWO, paid_task, say, voucher_of
from tests.paying.test_priced_peers import priced, settled, started
from wire import limits
from wire.content import ContentId
from wire.errors import Refused
from wire.ledger import ModelPart, Voucher
from wire.motion import RegisteredModel

HASH, OTHER = ContentId.of(b"a model"), ContentId.of(b"another")


def record(total: int, **amounts: int) -> Voucher:
    names = {"model": HASH, "other": OTHER}
    parts = sorted((names[it], amount) for it, amount in amounts.items())
    return Voucher(
        network=HASH,
        channel=bytes(32),
        total=total,
        tasks=1,
        receipt=None,
        models=tuple(ModelPart(model=it, amount=amount) for it, amount in parts),
    )


async def test_what_is_redeemed_says_for_which_model_it_was(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        for number in range(30):
            answered, _ = await asked(payer, paid_task(number))
        paid, earned = await settled(payer, worker)
        ((model, charged),) = paid.models.items()
        assert charged == 3000
        assert worker.paying is not None
        assert payer.ledger is not None
        await worker.paying.till.channels.redeem()
        assert payer.ledger.member is not None
        (channel,) = payer.ledger.member.replica.draft.channels_of(payer.peers.me)
        ((named, amount),) = channel.models
        assert named == model
        # What was worked for since the last voucher is named by the next.
        assert 1500 <= amount <= 3000
        assert amount == earned.named[model]
        # Who starts again goes on naming at least as much.
        again = PaidChannel.from_bytes(paid.name, paid.to_bytes())
        assert (again.models, again.named) == (paid.models, paid.named)
        kept = EarningChannel.from_bytes(earned.name, earned.to_bytes())
        assert (kept.models, kept.named) == (earned.models, earned.named)
        row = RegisteredModel(author=TWO.peer, share=200_000, motion=bytes(32))
        shares = shares_map(answered.answer.record, {MODEL + model: row.to_bytes()})
        assert shares["fund"] == 5
        assert [it["amount"] for it in shares["authors"]] == [20]


async def test_a_voucher_that_names_what_was_not_done_is_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        payer, worker = await started(network, priced(base=100))
        for number in range(20):
            await asked(payer, paid_task(number))
        paid, earned = await settled(payer, worker)
        total = earned.highest + 10
        ahead = total - earned.charged
        before: dict[str, Any] = dict(earned.named)
        for amounts, why in (
            ({OTHER: ahead + 1} | before, "names more for a model"),
            ({OTHER: 1}, "names less for a model"),
            ({}, "names less for a model"),
        ):
            parts = tuple(ModelPart(model=it, amount=amounts[it]) for it in sorted(amounts))
            with pytest.raises(Refused, match=why):
                await say(payer, worker, voucher=voucher_of(payer, paid, total, models=parts))
        assert earned.named == before
        await trio.lowlevel.checkpoint()


def test_a_payee_that_forgot_some_of_its_charges_takes_what_is_named_all_the_same() -> None:
    channel = EarningChannel(ONE.peer, bytes(32), 10_000, 9, highest=900, charged=500)
    channel.models = {HASH: 500}
    # 300 were charged and are forgotten: they are worked for once more.
    assert not channel.misnamed(record(1000, model=800))
    assert channel.misnamed(record(1000, other=501))
    assert not channel.misnamed(record(1000, other=500))
    assert channel.take(record(1000, model=800), b"v")
    assert channel.misnamed(record(1001, model=799))


def test_a_payer_names_the_first_models_and_never_less_than_before() -> None:
    channel = PaidChannel(TWO.peer, bytes(32), 10_000, 9, b"", signed=1000, charged=900)
    for at in range(limits.VOUCHER_MODELS_MAX + 1):
        channel.note_model(ContentId.of(b"%d" % at), 100)
    assert sum(it.amount for it in channel.name_models()) == 100 * limits.VOUCHER_MODELS_MAX
    channel.note_model(ContentId.of(b"0"), -100)
    assert {it.amount for it in channel.name_models()} == {100}
    channel.note_model(ContentId.of(b"1"), 5000)
    # It is never more than what is promised in all.
    assert sum(it.amount for it in channel.name_models()) == 1000


def test_what_is_promised_in_the_name_of_one_model_pays_for_no_other() -> None:
    """Or else an author names its own model for whatever it has done, and gets back its share."""
    channel = EarningChannel(ONE.peer, bytes(32), 10_000, 9)
    assert channel.take(record(1000, model=900), b"v")
    assert channel.available_for(OTHER) == channel.available_for(None) == 100
    assert channel.available_for(HASH) == 1000
    channel.set_aside(100, None)
    # Neither while other work is under way, nor in the names of two.
    assert channel.misnamed(record(1200, model=1101))
    assert channel.misnamed(record(1200, model=600, other=600))
    assert not channel.misnamed(record(1200, model=1100))
    assert not channel.misnamed(record(1200, model=1000, other=100))
    channel.set_aside(900, HASH)
    assert not channel.misnamed(record(1200, model=1100))
    assert channel.available_for(OTHER) == 0
    channel.set_aside(-100, None)
    assert channel.available_for(OTHER) == 100
