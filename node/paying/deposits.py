"""What channels that are opened together begin with: each with enough to be of use. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import InputError


@dataclass(frozen=True, slots=True)
class WantedChannel:
    """A channel that work waits for: what one like it usually has, and what a task there needs."""

    payee: PeerId
    usual: int
    need: int


def deposits(
    wanted: Sequence[WantedChannel], share: int, left: int, least: int
) -> Mapping[PeerId, int]:
    """What each begins with, of what is `left`: the usual, but at most `share`.

    It is never less than one task needs, nor than any channel has, `least`: credits that pay for
    no task would only be locked until the channel expires. Those for which too little is left are
    not opened; the cheapest come first, so that with few credits there are as many as can be.
    """
    found: dict[PeerId, int] = {}
    for channel in sorted(wanted, key=lambda it: it.need):
        deposit = max(least, channel.need, min(share, channel.usual))
        if deposit <= left:
            found[channel.payee] = deposit
            left -= deposit
    return found


def too_few(
    account: PeerId, balance: int, wanted: Sequence[WantedChannel], kept: int
) -> InputError:
    """Why none is opened, and where credits come from. `kept` is what stays in every account."""
    needed = kept + max(kept, min(it.need for it in wanted))
    return InputError(
        f"the account {account} has {show_credits(balance)} credits, too few to pay others for"
        f" this: it takes {show_credits(needed)}, of which {show_credits(kept)} stay there",
        todo="get the first ones with `python -m node wallet faucet`, or have somebody pay that"
        " account",
    )
