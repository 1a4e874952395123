"""What the owner of an account may order, as the books are now. Pure."""

from collections.abc import Callable

from node.ledger.books import Draft
from node.ledger.case_places import check_charge, check_notice
from node.ledger.juries import check_finding, check_sealed
from node.ledger.matching import check_builder
from node.ledger.model_registry import check_claim
from node.ledger.motion_shelf import MOTION, motion_bond, open_motions
from node.ledger.payment_channel import PaymentChannel
from node.ledger.seats import check_seat, is_to_be_seated
from node.ledger.slashing import check_accusation, check_evidence
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import Malformed, Refused
from wire.kinds import RefusalCode
from wire.ledger import NAMED_REDEMPTION_MIN, AccountOrder, Redemption, Voucher
from wire.motion import MotionRow, MotionState
from wire.signed import Signed, open_signed
from wire.signing import is_key
from wire.stake import STAKE_MIN, StakeRow

# A channel is opened for at most so many epochs ahead.
EXPIRY_EPOCHS_MAX = 100_000
# Each is counted at the end of every epoch.
OPEN_MOTIONS_MAX = 64


def judge(draft: Draft, order: Signed[AccountOrder]) -> None:
    """Refused unless the owner may order this now."""
    owner, record = order.signer, order.record
    check_cover(draft, owner, record)
    for payment in record.pay:
        _judge_receiver(draft, owner, payment.to, payment.amount)
    for opening in record.open:
        _judge_receiver(draft, owner, opening.payee, opening.deposit)
        if opening.deposit < draft.books.account_min:
            raise _never(f"a channel has at least {show_credits(draft.books.account_min)}")
        _judge_expiry(draft, opening.expiry)
    for top_up in record.top_up:
        channel = _own(draft, top_up.channel, owner, "payer")
        _judge_expiry(draft, top_up.expiry)
        if channel.expiry < draft.epoch or top_up.expiry < channel.expiry:
            raise _never(f"the channel ends with epoch {channel.expiry}")
    for redemption in record.redeem:
        _judge_redemption(draft, owner, redemption, order.record)
    for name in record.reclaim:
        channel = _own(draft, name, owner, "payer")
        if channel.expiry >= draft.epoch:
            raise _never(f"the channel is its payee's until the end of epoch {channel.expiry}")
    _judge_stakes(draft.stake(owner), record)
    _judge_motions(draft, owner, record)
    try:
        _judge_cases(draft, owner, record)
    except KeyError as error:
        raise _not_yet("there is no such case") from error
    except Malformed as error:
        raise _never(error.message) from error


def _judge_cases(draft: Draft, owner: PeerId, record: AccountOrder) -> None:
    """Malformed unless the owner may accuse, or say what it found; KeyError for an unknown case."""
    for accusation in record.accuse:
        check_accusation(draft, accusation, record.network)
    for notice in record.announce:
        check_notice(draft, owner, notice)
    for charge in record.charge:
        check_charge(draft, owner, charge)
    for sealed in record.commit:
        check_sealed(draft, owner, sealed)
    for finding in record.find:
        check_finding(draft, owner, finding)


def _not_yet(what: str) -> Refused:
    return Refused(
        f"{what}, or its epoch has not ended yet", code=RefusalCode.NOT_COVERED, retry_after_s=1.0
    )


def _checked(check: Callable[..., None], *about: object) -> None:
    """Refused for good where a check says Malformed."""
    try:
        check(*about)
    except Malformed as error:
        raise _never(error.message) from error


def _judge_motions(draft: Draft, owner: PeerId, record: AccountOrder) -> None:
    """Refused for a bond that is too small, or a ballot on what is not open."""
    rows = draft.books.motions.rows
    # Every motion that there ever was is read for it.
    count = open_motions(rows) if record.propose else 0
    for motion in record.propose:
        bond = motion_bond(rows, count)
        if motion.bond < bond:
            raise _never(f"a motion is made with a bond of {show_credits(bond)} now")
        if motion.grant is not None and not is_key(motion.grant.to):
            raise _never("nobody can have the key that is to get the grant")
        for claim in motion.claims:
            if not is_key(claim.author):
                raise _never("nobody can have the key of the model's author")
            _checked(check_claim, rows, claim)
        for builder in motion.builders:
            _checked(check_builder, rows, builder)
        for seat in motion.seats:
            if not is_key(seat.member):
                raise _never("nobody can have the key that is to keep the ledger")
            _checked(check_seat, rows, draft.books.members, seat, draft.epoch)
        if count >= OPEN_MOTIONS_MAX:
            raise Refused(
                f"{OPEN_MOTIONS_MAX} motions are open: no more is taken before one is decided",
                code=RefusalCode.BUSY,
            )
    for ballot in record.ballot:
        raw = rows.get(MOTION + ballot.motion)
        if raw is None:
            raise _not_yet("there is no such motion")
        row = MotionRow.from_bytes(raw)
        if is_to_be_seated(rows, owner, ballot.motion, row.motion.seats):
            # It says that it is there.
            continue
        if row.state is not MotionState.OPEN:
            raise _never(f"the motion is decided: {row.state.name.lower()}")
        counts = owner in draft.books.founders or draft.stake(owner).bonded
        if not counts and not draft.books.motions.users[owner]:
            # A key costs nothing, and what it ordered is kept.
            raise _never("this account has staked nothing, and paid for no task in four weeks")


def _judge_stakes(row: StakeRow, record: AccountOrder) -> None:
    """Refused unless what is staked for a role after the order is enough, or nothing."""
    least = f"at least {show_credits(STAKE_MIN)} credits are staked for a role"
    for part in record.stake:
        if row.of_role(part.role) + part.amount < STAKE_MIN:
            raise _never(least)
    for part in record.unbond:
        staked = row.of_role(part.role)
        if part.amount > staked:
            raise Refused(
                f"{show_credits(staked)} credits are staked for {part.role.name.lower()},"
                f" {show_credits(part.amount)} are more",
                code=RefusalCode.NOT_COVERED,
            )
        if 0 < staked - part.amount < STAKE_MIN:
            raise _never(f"{least}: unbond all of it, or leave as much")


def check_cover(draft: Draft, owner: PeerId, record: AccountOrder) -> None:
    """Refused unless this is the account's next order, and it has what the order takes."""
    account = draft.account(owner)
    if record.sequence != account.sequence:
        raise Refused(
            f"the next order of this account has the sequence number {account.sequence},"
            f" not {record.sequence}",
            code=RefusalCode.NOT_COVERED,
            retry_after_s=1.0 if record.sequence > account.sequence else None,
        )
    if record.spent > account.balance:
        raise Refused(
            f"the order takes {show_credits(record.spent)} credits,"
            f" and the account has {show_credits(account.balance)}",
            code=RefusalCode.NOT_COVERED,
            retry_after_s=1.0,
        )
    check_kept(draft, account.balance, record.spent)


def check_kept(draft: Draft, balance: int, spent: int) -> None:
    """Refused if an order leaves less in an account than one is opened with.

    Otherwise one sum would open any number of accounts, each of which is kept for ever.
    """
    least = draft.books.account_min
    if spent and balance - spent < least:
        raise Refused(
            f"an account keeps {show_credits(least)} credits, and"
            f" {show_credits(balance - spent)} would be left",
            code=RefusalCode.NOT_COVERED,
            retry_after_s=1.0,
        )


def check_authority(draft: Draft, order: Signed[AccountOrder]) -> None:
    """Malformed if an order that was applied took what was not its signer's to take.

    Members judge more than this before they vote; this holds whatever a quorum of them says.
    """
    owner, record = order.signer, order.record
    for accusation in record.accuse:
        check_evidence(accusation, record.network)
    for name in record.channels:
        channel = draft.channel(name)
        side = channel and (channel.payee if record.redeem else channel.payer)
        if side != owner:
            raise Malformed("an order takes from a channel of others")
    for redemption in record.redeem:
        channel = draft.channel(redemption.channel)
        if redemption.voucher is None or channel is None:
            continue
        voucher = open_signed(redemption.voucher, Voucher)
        named = (voucher.signer, voucher.record.network, voucher.record.channel)
        if named != (channel.payer, record.network, redemption.channel):
            raise Malformed("a voucher is not that of the channel's payer for this channel")


def _judge_receiver(draft: Draft, owner: PeerId, to: PeerId, amount: int) -> None:
    if to == owner:
        raise _never("an account does not pay itself")
    if draft.exists(to):
        return
    if amount < draft.books.account_min:
        raise _never(
            f"a new account is opened with at least {show_credits(draft.books.account_min)}"
        )
    if not is_key(to):
        raise _never("nobody can have the key that is to be paid")


def _judge_expiry(draft: Draft, expiry: int) -> None:
    if not draft.epoch <= expiry <= draft.epoch + EXPIRY_EPOCHS_MAX:
        raise _never(
            f"a channel ends with an epoch from {draft.epoch} to"
            f" {draft.epoch + EXPIRY_EPOCHS_MAX}, not {expiry}"
        )


def _judge_redemption(
    draft: Draft, owner: PeerId, redemption: Redemption, order: AccountOrder
) -> None:
    channel = _own(draft, redemption.channel, owner, "payee")
    if channel.expiry < draft.epoch:
        raise _never(f"the channel ended with epoch {channel.expiry}")
    if redemption.voucher is None:
        return
    voucher = open_signed(redemption.voucher, Voucher)
    if voucher.signer != channel.payer:
        raise _never("the voucher is not signed by the channel's payer")
    if (voucher.record.network, voucher.record.channel) != (order.network, redemption.channel):
        raise _never("the voucher is of another channel")
    named = {it.model: it.amount for it in voucher.record.models}
    if any(named.get(model, 0) < paid for model, paid in channel.models):
        raise _never("the voucher names less for a model than was redeemed for it")
    if named and 0 < voucher.record.total - channel.paid < NAMED_REDEMPTION_MIN:
        raise _never(f"a voucher that names models adds {NAMED_REDEMPTION_MIN} millionths or more")
    if not channel.paid < voucher.record.total <= channel.deposit:
        raise Refused(
            f"the voucher says {show_credits(voucher.record.total)}: more than"
            f" {show_credits(channel.paid)}, which is paid, and at most"
            f" {show_credits(channel.deposit)} can be redeemed",
            code=RefusalCode.NOT_COVERED,
            retry_after_s=1.0 if voucher.record.total > channel.deposit else None,
        )


def _own(draft: Draft, name: bytes, owner: PeerId, side: str) -> PaymentChannel:
    channel = draft.channel(name)
    if channel is None or channel.closed:
        raise Refused("there is no such channel", code=RefusalCode.NOT_COVERED, retry_after_s=1.0)
    if getattr(channel, side) != owner:
        raise _never(f"the channel has another {side}")
    return channel


def _never(why: str) -> Refused:
    return Refused(why, code=RefusalCode.MALFORMED)
