"""The figures of a network with credits, and in words what came of each of its faults."""

from collections.abc import Iterable
from typing import Any

from node.devnet.economy import Economy
from node.devnet.economy_accounts import WorkerAccount
from node.devnet.economy_plan import honest
from wire.amount import show_credits

# Faults of a network with credits, in the order in which they are told.
TOLD = ("member", "partition", "equivocator", "nonpayer", "thief", "whale", "ring")


def figures(economy: Economy | None) -> dict[str, Any]:
    """What a report says of credits, by stable names; nothing in a network without any."""
    if economy is None:
        return {}
    watch, ledger = economy.watch, economy.ledger
    good = set(honest([it.number for it in economy.population.peers], economy.faults))
    disks = {it.number for it in economy.population.peers if it.lost_stores}
    workers = [it for it in economy.accounts if it.number in good]
    whole = [it for it in workers if it.number not in disks]
    lengths_s = watch.lengths_s()
    return {
        "epochs_ended": watch.ended - watch.first_epoch,
        "epoch_max_s": max(lengths_s, default=None),
        "supply": show_credits(watch.plan.genesis.supply),
        "ledger_orders": 0 if ledger is None else ledger.orders,
        "ledger_signatures": 0 if ledger is None else ledger.signatures,
        "redeemed": show_credits(_redeemed(economy)),
        "earned": show_credits(sum(it.said for it in workers)),
        # By receipts: what honest payers owe is judged, of the others what they owe in increments.
        "paid_by_honest_ratio_min": min((it.honest_ratio for it in whole), default=None),
        "paid_by_honest_ratio": _honest_ratio(workers),
        "nonpayers_owe_max_increments": _owed_max(economy, whole),
        "paid_ratio_min": min((it.ratio for it in whole), default=None),
        "paid_ratio": _ratio(workers),
        "paid_ratio_of_lost_disks": _ratio(it for it in workers if it.number in disks),
        "loss_max_increments": _loss_max(economy),
        **economy.stakes.figures(),
        **_of_relays(economy),
        "deposits_forgotten": show_credits(economy.deposits_forgotten),
        "economy": {
            "told": told(economy),
            "members": list(watch.plan.members),
            "tolerates": watch.plan.tolerates,
            "epoch_lengths_s": [round(it, 1) for it in lengths_s],
            "losses": _losses(economy),
            "workers": [
                {
                    "peer": it.number,
                    "said": it.said,
                    "paid": it.paid,
                    "said_of_honest": it.said_of_honest,
                    "paid_by_honest": it.paid_by_honest,
                    "beyond": it.beyond,
                }
                for it in economy.accounts
            ],
            "unpaid": _unpaid(economy),
        },
    }


def _of_relays(economy: Economy) -> dict[str, Any]:
    if (relays := economy.relays) is None:
        return {}
    return {
        "relays_passed_bytes": relays.passed_bytes,
        "relays_paid_bytes": relays.paid_bytes,
        "relays_earned": show_credits(relays.earned),
        "relays_free_bytes_most": relays.free_bytes_most,
    }


def told(economy: Economy) -> list[str]:
    """What came of each fault, a sentence each."""
    say = {
        "member": _of_members,
        "partition": _of_partition,
        "equivocator": _of_equivocators,
        "nonpayer": _of_nonpayers,
        "thief": _of_thieves,
        "whale": _of_whale,
        "ring": _of_ring,
    }
    names = {it.name for it in economy.faults}
    relays = [] if economy.relays is None else [economy.relays.told()]
    return relays + [f"{name}: {say[name](economy)}" for name in TOLD if name in names]


def _of_members(economy: Economy) -> str:
    watch = economy.watch
    lost = f"{watch.disks_lost} with an empty disk"
    if watch.spared:
        lost += f", {watch.spared} left out as {watch.plan.tolerates} may be out at once"
    return (
        f"{watch.restarts} restarts of {len(economy.struck_by('member'))} of"
        f" {len(watch.plan.members)} members, {lost}; members sat out an epoch"
        f" {len(watch.sat_out)} times"
    )


def _of_partition(economy: Economy) -> str:
    watch = economy.watch
    cut = economy.struck_by("partition")
    members = len(cut & set(watch.plan.members))
    longest_s = max(watch.lengths_s(), default=0.0)
    return (
        f"{len(cut)} peers were cut off, {members} of {len(watch.plan.members)} members among"
        f" them; the longest epoch took {longest_s:.0f} s instead of {watch.plan.config.epoch_s} s"
    )


def _of_equivocators(economy: Economy) -> str:
    found = economy.population.around.two_orders
    return (
        f"{len(found.deeds)} owners signed two orders with one number {found.signed} times; both"
        f" were certified {found.doubled} times, one of them {found.with_one} times;"
        f" {len(found.stuck(economy.watch.ended))} owners were not free again"
    )


def _of_nonpayers(economy: Economy) -> str:
    watch, peers = economy.watch, economy.population.peers
    bad = {peers[it].key.peer for it in economy.struck_by("nonpayer")}
    lost = [loss for (payer, _), (_, loss) in watch.losses.items() if payer in bad]
    counts = economy.strays.counts
    return (
        f"{len(bad)} askers had {counts.answered} of {counts.due} tasks answered, and"
        f" {sum(it > 0 for it in lost)} peers worked for {show_credits(sum(lost))} credits that"
        " were not promised"
    )


def _of_thieves(economy: Economy) -> str:
    watch, peers = economy.watch, economy.population.peers
    bad = {peers[it].key.peer for it in economy.struck_by("thief")}
    lost = [loss for (_, payee), (loss, _) in watch.losses.items() if payee in bad]
    return (
        f"{len(bad)} peers kept {show_credits(sum(lost))} credits that {sum(it > 0 for it in lost)}"
        " payers had paid ahead"
    )


def _of_whale(economy: Economy) -> str:
    return economy.stakes.told_of_whale()


def _of_ring(economy: Economy) -> str:
    return economy.stakes.told_of_ring()


def _redeemed(economy: Economy) -> int:
    if economy.ledger is None:
        return 0
    channels = economy.ledger.books.channels
    return sum(it.paid for shelf in channels for it in shelf.values())


def _ratio(accounts: Iterable[WorkerAccount]) -> float | None:
    some = list(accounts)
    said = sum(it.said for it in some)
    return sum(it.paid for it in some) / said if said else None


def _honest_ratio(accounts: Iterable[WorkerAccount]) -> float | None:
    some = list(accounts)
    said = sum(it.said_of_honest for it in some)
    return sum(it.paid_by_honest for it in some) / said if said else None


def _owed_max(economy: Economy, accounts: Iterable[WorkerAccount]) -> float:
    """The most that one asker that does not pay owes one worker by receipts, in increments."""
    peers, increments = economy.population.peers, economy.watch.increments
    bad = {peers[it].key.peer for it in economy.struck_by("nonpayer")}
    ratios = [
        (said - paid) / increment
        for it in accounts
        if (increment := increments[peers[it.number].key.peer])
        for payer, (said, paid) in it.by_payer.items()
        if payer in bad and said > paid
    ]
    return max(ratios, default=0.0)


def _loss_max(economy: Economy) -> float:
    watch = economy.watch
    ratios = [
        max(lost) / watch.increments[pair[1]]
        for pair, lost in watch.losses.items()
        if watch.increments[pair[1]]
    ]
    return max(ratios, default=0.0)


def _losses(economy: Economy) -> list[dict[str, int | None]]:
    """Of each two that ever owed each other something, the most that it was."""
    watch = economy.watch
    return [
        {
            "payer": watch.plan.numbers.get(payer),
            "payee": watch.plan.numbers.get(payee),
            "payer_lost": lost[0],
            "payee_lost": lost[1],
            "increment": watch.increments[payee],
        }
        for (payer, payee), lost in watch.losses.items()
        if any(lost)
    ]


def _unpaid(economy: Economy) -> list[dict[str, int | None]]:
    """Of each two where less is paid than receipts and verdicts say: how much."""
    numbers = economy.watch.plan.numbers
    return [
        {"payer": numbers.get(payer), "payee": it.number, "said": said, "paid": paid}
        for it in economy.accounts
        for payer, (said, paid) in it.by_payer.items()
        if paid < said
    ]
