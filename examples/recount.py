"""Recounts every motion of a network from its exported ledger, without any code of the network.

    python examples/recount.py all.ledger

It checks each signature that a count rests on, and prints what was decided, as JSON. It stops at
the first epoch that does not hold. It needs msgpack and cryptography, and no network.

Stakes count as penalties and juries left them (`recount_stakes.py`, which has to lie beside it).
"""

import base64
import json
import struct
import sys
from collections import Counter, defaultdict
from pathlib import Path

import msgpack
from recount_stakes import STAYS, Stakes, Wrong, check, id_of, read, sha

WEEK_S, WEEKS, FOUNDING = 7 * 24 * 3600, 4, 1000 * 10**6
# Of pairs that only moved credits so many are kept in a week.
PLAIN_MAX, MILLION = 100_000, 1_000_000
# More members no ledger has.
MEMBERS_MAX = 32
# Who is to be a member and has not been there for so many epochs after that is not any more.
WAITING_MAX = 672
# What reading a file's parts raises where they are not what they should be.
UNREADABLE = (Wrong, KeyError, TypeError, ValueError, IndexError, AttributeError, struct.error)
STATES = ("open", "passed", "rejected", "lapsed", "unfunded", "taken", "declined")


def check_quorum(members, domain, body, signatures, what):
    signers = [it for at, it in enumerate(members) if signatures["members"] >> at & 1]
    weight, whole = sum(it["weight"] for it in signers), sum(it["weight"] for it in members)
    others = signatures["members"] >> len(members)
    if weight * 3 <= whole * 2 or len(signers) != len(signatures["proofs"]) or others:
        raise Wrong(f"{what}: not signed by more than two thirds")
    for member, proof in zip(signers, signatures["proofs"], strict=True):
        check(member["key"], domain, body, proof, what)


def parts_of(file):
    if file.readline() != b"baton ledger 1\n":
        raise Wrong("not a ledger")
    while head := file.read(4):
        part = file.read(int.from_bytes(head, "big"))
        if len(head) < 4 or len(part) != int.from_bytes(head, "big"):
            raise Wrong("the file is cut")
        yield part


def owners(edges):
    """Accounts that reach each other along transfers are one owner's (Kosaraju's way)."""
    ahead, back = defaultdict(set), defaultdict(set)
    for source, target in edges:
        ahead[source].add(target)
        back[target].add(source)
    done, order = set(), []
    for root in [*ahead, *back]:
        stack = [(root, False)]
        while stack:
            node, left = stack.pop()
            if left:
                order.append(node)
            elif node not in done:
                done.add(node)
                stack += [(node, True), *((it, False) for it in ahead[node])]
    owner = {}
    for root in reversed(order):
        stack = [root]
        while stack:
            node = stack.pop()
            if node not in owner:
                owner[node] = root
                stack += back[node]
    return owner


class Recount:
    """What the orders so far come to, as far as motions need it."""

    def __init__(self, genesis):
        self.genesis = genesis
        self.week_epochs = max(1, WEEK_S // genesis["epoch_s"])
        self.motions, self.ballots = {}, defaultdict(dict)
        # Models that have an author: that, its share in millionths, and by which motion.
        self.models = {}
        self.channels, self.stakes = {}, Stakes()
        # Who keeps the ledger, and changes of that: to be decided, and those that wait.
        self.members = {it["key"]: it["weight"] for it in genesis["members"]}
        self.seats, self.waiting = {}, {}
        # Those that are to be seated, and have said in this epoch that they are there.
        self.there = set()
        # Of each week: what was paid for tasks, and 0 for pairs that only moved credits.
        self.paid, self.pays = defaultdict(Counter), set()

    def order(self, epoch, owner, record, digest):
        week = epoch // self.week_epochs
        for motion in record.get("propose", ()):
            name = sha(b"baton/1/motion\0", digest)
            until = epoch + motion["epochs"]
            self.motions[name] = {"title": motion["title"], "until": until, "state": 0}
            for claim in motion.get("claims", ()):
                self.motions[name]["claim"] = claim
            for seat in motion.get("seats", ()):
                self.seats[name] = seat, owner
        for ballot in record.get("ballot", ()):
            self.ballots[ballot["motion"]][owner] = ballot["yes"]
            self.there.discard((ballot["motion"], owner))
            if ballot["yes"] and ballot["motion"] in {motion for _, motion in self.waiting}:
                self.there.add((ballot["motion"], owner))
        self.stakes.order(record["network"], epoch, owner, record, digest)
        for payment in record.get("pay", ()):
            self.pays.add((owner, payment["to"]))
        for part in record.get("redeem", ()):
            if part["voucher"] is None:
                continue
            _, body, payer, _ = read(part["voucher"])
            voucher, name = read(body), part["channel"]
            total, (before, counted) = voucher["total"], self.channels.get(name, (0, {}))
            self.paid[week][payer, owner] += total - before
            by_model = {it["model"]: it["amount"] for it in voucher.get("models", ())}
            for model, amount in by_model.items():
                # What the author of a model has came from the payer, as if that had paid it.
                author, share, _ = self.models.get(model, (None, 0, None))
                if amount * share // MILLION > counted.get(model, 0) * share // MILLION:
                    self.pays.add((payer, author))
            self.channels[name] = total, by_model

    def between_strangers(self, epoch):
        """What was paid for tasks in four weeks by one account to another of another owner."""
        week = epoch // self.week_epochs
        recent = [it for it in self.paid if it > week - WEEKS]
        owner = owners({edge for it in recent for edge in self.paid[it]})
        for at in recent:
            for (payer, payee), paid in self.paid[at].items():
                if paid and owner[payer] != owner[payee]:
                    yield payer, payee, paid

    def earned(self, epoch):
        found = Counter()
        if self.stakes.rows:
            for _, payee, paid in self.between_strangers(epoch):
                found[payee] += paid
        return found

    def houses(self, epoch):
        using = Counter()
        for payer, _, paid in self.between_strangers(epoch):
            using[payer] += paid
        stake = Counter({it["key"]: it["weight"] * FOUNDING for it in self.genesis["members"]})
        for account, row in self.stakes.rows.items():
            stake[account] += sum(it for (until, _), it in row.items() if until == STAYS)
        return stake, using

    def end(self, epoch, header):
        there = self.paid[epoch // self.week_epochs]
        room = PLAIN_MAX - sum(not paid for paid in there.values())
        for pair in sorted(self.pays - there.keys())[: max(0, room)]:
            there[pair] += 0
        self.pays = set()
        self.stakes = self.stakes.end(epoch, header, self.earned(epoch))
        if all(it["state"] for it in self.motions.values()):
            return
        stake, using = self.houses(epoch)
        for name, motion in sorted(self.motions.items()):
            if motion["state"]:
                continue
            counts = []
            for weights in (stake, using):
                yes = sum(weights[it] for it, for_it in self.ballots[name].items() if for_it)
                no = sum(weights[it] for it, for_it in self.ballots[name].items() if not for_it)
                counts.append((yes, no, sum(weights.values())))
            if all(yes * 2 > total for yes, _, total in counts):
                motion["state"] = 1
            elif epoch >= motion["until"]:
                turnout = all(total and (yes + no) * 5 >= total for yes, no, total in counts)
                passed = all(yes > no for yes, no, _ in counts)
                motion["state"] = (1 if passed else 2) if turnout else 3
            motion["stake"], motion["use"] = counts
            if motion["state"] == 1 and "claim" in motion:
                motion["state"] = self.claimed(name, motion["claim"])
            if motion["state"] == 1 and name in self.seats:
                motion["state"] = self.agreed(name, *self.seats[name])

    def agreed(self, motion, seat, author):
        """Who is to keep the ledger has to say so itself."""
        member = seat["member"]
        if seat["weight"] and member != author and not self.ballots[motion].get(member):
            return 6
        back = [key for key, it in self.waiting.items() if it["weight"] and it["member"] == member]
        if back and not seat["weight"] and member not in self.members:
            # Nobody waits any more for a seat that is taken back.
            for key in back:
                del self.waiting[key]
            return 1
        self.waiting[seat["since"], motion] = seat
        return 1

    def reseat(self, epoch):
        """The members of the next epoch: no more weight changes at once than may be bad."""
        members, moved, whole = self.members, 0, sum(self.members.values())
        for key in sorted(it for it in self.waiting if it[0] <= epoch):
            seat, there = self.waiting[key], members.get(self.waiting[key]["member"], 0)
            others = [it for who, it in members.items() if who != seat["member"]]
            room = there or (seat["weight"] and len(members) < MEMBERS_MAX)
            weight = min(seat["weight"], max(others)) if others and room else there
            if weight and not there and (key[1], seat["member"]) not in self.there:
                if epoch - seat["since"] >= WAITING_MAX:
                    del self.waiting[key]
                continue
            step = abs(weight - there)
            if moved and step and (moved + step) * 3 >= whole:
                break
            del self.waiting[key]
            moved += step
            members[seat["member"]] = weight
            if not weight:
                del members[seat["member"]]
        self.there.clear()
        return [{"key": it, "weight": members[it]} for it in sorted(members)]

    def claimed(self, motion, claim):
        """Of claims to one model the first that passed holds, until it is ended (share 0)."""
        model, author, share = claim["model"], claim["author"], claim["share"]
        holds = self.models.get(model)
        if share and holds is None:
            self.models[model] = author, share, motion
        elif not share and holds is not None and holds[0] == author:
            del self.models[model]
        else:
            return 5
        return 1


def _epoch(found, network, members, previous, epoch, raw, parts):
    """Check one epoch and count it; its header."""
    checkpoint = read(raw)
    header = read(checkpoint["header"])
    named = header["network"], header["epoch"], header["previous"]
    if named != (network, epoch, previous):
        raise Wrong("a checkpoint of another network, or out of order")
    vote = {"epoch": epoch, "header": id_of(checkpoint["header"]), "network": network, "phase": 1}
    vote["round"] = checkpoint["round"]
    body = msgpack.packb(dict(sorted(vote.items())))
    check_quorum(members, "agreement_vote", body, checkpoint["signatures"], "the checkpoint")
    orders = []
    for number in range(header["count"]):
        what, certificate = f"order {number}", read(next(parts, b"\xc0"))
        kind, body, owner, proof = read(certificate["order"])
        if kind != 60 or certificate.keys() != {"order", "votes"}:
            raise Wrong(f"{what}: no order of an account")
        check(owner, "account_order", body, proof, what)
        record, digest = read(body), sha(owner, body)
        vote = {"account": owner, "epoch": epoch, "network": network, "order": digest}
        vote["sequence"] = record["sequence"]
        body = msgpack.packb(dict(sorted(vote.items())))
        check_quorum(members, "vote", body, certificate["votes"], what)
        orders.append((record["sequence"], owner, record, digest))
    listed = [sorted(it[3] for it in orders if it[3][0] >> 4 == at) for at in range(16)]
    if header["buckets"] != b"".join(sha(*it) for it in listed):
        raise Wrong("its orders are not those of its checkpoint")
    # A voucher's total is cumulative, so a payee's orders come in their own order.
    for _, owner, record, digest in sorted(orders, key=lambda it: it[:2]):
        found.order(epoch, owner, record, digest)
    found.end(epoch, header)
    if found.reseat(epoch + 1) != header["members"]:
        raise Wrong("the members of the next epoch are not those that were voted for")
    return header


def recount(file):
    """Every motion by its id: title, until, state (1: passed), and (yes, no, total) by house."""
    return recount_all(file).motions


def recount_all(file):
    """The same, with what motions have registered."""
    parts = parts_of(file)
    raw = next(parts)
    genesis = read(raw)
    network, previous, epoch = id_of(raw), None, 0
    try:
        found, members = Recount(genesis), genesis["members"]
    except UNREADABLE as error:
        raise Wrong(f"its beginning: {error}") from None
    for raw in parts:
        try:
            header = _epoch(found, network, members, previous, epoch, raw, parts)
        except UNREADABLE as error:
            raise Wrong(f"epoch {epoch}: {error}") from None
        members, epoch, previous = header["members"], epoch + 1, id_of(read(raw)["header"])
    return found


def _shown(name, motion, models):
    """A motion for JSON; of one about a model, whether that holds now."""
    claim, shown = motion.get("claim"), motion | {"state": STATES[motion["state"]]}
    if claim:
        holds = models.get(claim["model"], (b"", 0, b""))[2] == name
        text = base64.b32encode(claim["model"]).decode().lower().rstrip("=")
        model = {"id": "b" + text, "author": claim["author"].hex()}
        shown["claim"] = model | {"share": claim["share"], "holds": holds}
    return shown


def main():
    try:
        with Path(sys.argv[1]).open("rb") as file:
            found = recount_all(file)
    except OSError as error:
        sys.exit(f"{sys.argv[1]} cannot be read: {error.strerror}")
    except (Wrong, StopIteration) as error:
        sys.exit(f"this ledger does not hold: {error}")
    shown = {name.hex(): _shown(name, it, found.models) for name, it in found.motions.items()}
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) != 2:
        print(f"{__doc__}\nusage: python {sys.argv[0]} LEDGER")
        print("python -m node ledger export LEDGER writes one")
        sys.exit("--help" not in sys.argv)
    main()
