"""What accounts have staked after penalties and juries, for `recount.py`; without the node's code.

Signatures and the shape of evidence are checked here, and each checkpoint names the stakes that it
leaves. Of evidence that only a model shows to be true the members' word is taken.
"""

import copy
import hashlib
import itertools
import struct
from bisect import bisect_right
from collections import Counter, defaultdict

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# What is staked and does not leave has this in place of the epoch with which it is given back.
STAYS, UNBONDING_EPOCHS, VERIFY = -1, 14, 2
# Kinds of evidence, and what each costs: a share of the stake in millionths, and the least.
TWO_VOTES, FORKED_LOG, LOST_DISPUTE, UNTRUE_VERDICT, WRONG_ANSWER, DISPUTED_WORK = range(1, 7)
SHARES = {TWO_VOTES: 1_000_000, FORKED_LOG: 200_000}
OTHER_SHARE, LEAST = 500_000, 1_000_000
# The records that evidence has: their domains by their kinds.
VOTES = {61: "vote", 65: "agreement_vote", 63: "seal"}
TASK, RECEIPT, VERDICT = {2: "task"}, {3: "receipt"}, {4: "verdict"}
DISPUTE, LOG_HEAD = {110: "dispute"}, {122: "log_head"}
# Who lost a dispute is found by trying which of both gives the checkpoint's stakes.
DISPUTES_MAX = 6
# A jury's seats, how many have to agree, and the epochs that it has to look and to tell.
SEATS, AGREEING, JURY_EPOCHS, TELL_EPOCHS = 13, 10, 24, 12
# How many cases there are at once, what the first costs, how often one answer is brought, and how
# long one that was announced is waited for.
CASES_MAX, CASE_BOND, ATTEMPTS_MAX, NOTICE_EPOCHS = 16, 1_300_000, 3, 24
# A case: how it stands. One that hung, or had no jury, may be brought again.
WAITING, JURY, JURY_TELLS, EVERYBODY, EVERYBODY_TELLS, UNDECIDED, CLOSED = range(7)
ENDED = (UNDECIDED, CLOSED)


class Wrong(Exception):
    """Something in the file does not hold."""


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def id_of(data):
    """The content id: CIDv1, raw, sha2-256."""
    return bytes.fromhex("01551220") + sha(data)


def read(data):
    try:
        value = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Wrong(f"no msgpack: {error}") from None
    if msgpack.packb(value) != data:
        raise Wrong("a second encoding of the same value")
    return value


def check(key, domain, body, proof, what):
    """One signature: over the words themselves, or over the root of many (a Merkle path)."""
    words = b"baton/1/" + domain.encode() + b"\0" + body
    if len(proof) > 64:
        index, size = struct.unpack_from(">II", proof, 64)
        node, path = sha(b"\0", words), [proof[at : at + 32] for at in range(72, len(proof), 32)]
        width, number = size, index
        while width > 1:
            if number % 2:
                node = sha(b"\1", path.pop(0), node)
            elif number + 1 < width:
                node = sha(b"\1", node, path.pop(0))
            width, number = (width + 1) // 2, number // 2
        words = b"baton/1/batch\0" + struct.pack(">I", size) + node
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(proof[:64], words)
    except (InvalidSignature, ValueError):
        raise Wrong(f"{what}: a signature does not hold") from None


def opened(raw, kinds):
    """A signed record: its domain, who signed it, its bytes."""
    kind, body, key, proof = read(raw)
    if kind not in kinds:
        raise Wrong(f"a record of kind {kind} where there is to be a {'/'.join(kinds.values())}")
    check(key, kinds[kind], body, proof, f"the evidence: a {kinds[kind]}")
    return kinds[kind], key, body


def act_of(*parts):
    """What names an act, whatever evidence shows it."""
    parts = (struct.pack(">I", len(it)) + it for it in parts)
    return sha(b"baton/1/act\0", *parts)


def work(culprit, receipt):
    return culprit, act_of(b"work", culprit, id_of(receipt))


def _two_votes(records, network):
    (kind, key, one), (also, other_key, other) = (opened(it, VOTES) for it in records)
    first, second = read(one), read(other)
    keys = {"vote": ("account", "sequence"), "agreement_vote": ("round", "phase"), "seal": ()}
    same = all(first[it] == second[it] for it in ("network", "epoch", *keys[kind]))
    if (kind, key) != (also, other_key) or one == other or not same or first["network"] != network:
        raise Wrong("the evidence: a member may sign both of these")
    act = b"agreement"
    if kind == "vote":
        act = act_of(b"vote", first["account"], struct.pack(">Q", first["sequence"]))
    return key, act_of(b"member", key, network, struct.pack(">Q", first["epoch"]), act)


def _forked_log(records):
    (_, key, one), (_, other_key, other) = (opened(it, LOG_HEAD) for it in records)
    heads = sorted((one, other), key=lambda it: read(it)["number"])
    first, second = map(read, heads)
    differ = first["number"] == second["number"] or second["size"] < first["size"]
    differ |= second["size"] == first["size"] and second["root"] != first["root"]
    differ |= second["number"] == first["number"] + 1 and second["previous"] != sha(heads[0])
    same = (key, first["began_at_ms"]) == (other_key, second["began_at_ms"])
    if not same or one == other or not differ:
        raise Wrong("the evidence: two heads that do not contradict each other")
    return key, act_of(b"log", key, struct.pack(">Q", first["began_at_ms"]))


def accused(evidence, network):
    """Who did what by this evidence: (culprit, act), of which one or both lost if there are two."""
    kind, records = evidence["offence"], evidence["records"]
    if kind == TWO_VOTES:
        return [_two_votes(records, network)]
    if kind == FORKED_LOG:
        return [_forked_log(records)]
    if kind == LOST_DISPUTE:
        dispute = read(opened(records[0], DISPUTE)[2])
        receipt, verdict = dispute["receipt"], dispute["verdict"]
    elif kind in (UNTRUE_VERDICT, WRONG_ANSWER, DISPUTED_WORK):
        # A case names the receipts of all legs up to the one that is accused.
        receipt = records[-1] if kind == DISPUTED_WORK else records[1]
        verdict = records[2] if kind == UNTRUE_VERDICT else None
        opened(records[0], TASK)
    else:
        raise Wrong(f"evidence of kind {kind}")
    _, worker, _ = opened(receipt, RECEIPT)
    if verdict is None:
        return [work(worker, receipt)]
    _, verifier, said = opened(verdict, VERDICT)
    if read(said)["receipt"] != id_of(receipt):
        raise Wrong("the evidence: a verdict on another receipt")
    found = [work(worker, receipt), work(verifier, receipt)]
    return found if kind == LOST_DISPUTE else found[1:]


def smaller(amounts, wanted):
    """Amounts made smaller alike, so that they sum up to `wanted`."""
    total = sum(amounts)
    found = [it * wanted // total for it in amounts]
    missing = wanted - sum(found)
    for at, amount in enumerate(amounts):
        more = min(missing, amount - found[at])
        found[at] += more
        missing -= more
    return found


class Stakes:
    """What accounts have staked, and what evidence and juries take of it.

    A row is an account's: amounts by the epoch with which they are given back, and the role.
    """

    def __init__(self):
        self.rows, self.before, self.acts, self.earned = {}, {}, {}, Counter()
        self.accusations, self.cases, self.found = {}, {}, defaultdict(dict)
        # Cases that were announced, those shown in this epoch, and what jurors have sealed.
        self.notices, self.shown, self.sealed = {}, {}, defaultdict(dict)

    def order(self, network, epoch, owner, record, digest):
        row = Counter(self.rows.get(owner, {}))
        for part in record.get("stake", ()):
            row[STAYS, part["role"]] += part["amount"]
        for part in record.get("unbond", ()):
            amount = min(part["amount"], row[STAYS, part["role"]])
            row[STAYS, part["role"]] -= amount
            row[epoch + UNBONDING_EPOCHS, part["role"]] += amount
        self._put(owner, row)
        for accusation in record.get("accuse", ()):
            evidence = read(accusation["evidence"])
            who = accused(evidence, network)
            self.accusations[digest] = owner, evidence, who
        for finding in record.get("find", ()):
            wrong = finding["wrong"]
            words = owner + finding["case"] + bytes((wrong,)) + finding.get("salt", b"")
            seal = sha(b"baton/1/finding_seal\0", words)
            self.found[finding["case"]][owner] = wrong, seal
        for step in record.get("jury", ()):
            for notice in step.get("announce", ()):
                name = sha(b"baton/1/case\0", digest)
                self.notices[name] = (owner, notice["seal"], notice["bond"], epoch)
            for sealed in step.get("commit", ()):
                self.sealed[sealed["case"]][owner] = sealed["seal"]
            for charge in step.get("charge", ()):
                self._show(epoch, owner, charge)

    def _show(self, epoch, owner, charge):
        """The evidence of a case that was announced in an epoch before."""
        name, evidence = charge["case"], read(charge["evidence"])
        accuser, seal, bond, begun = self.notices.get(name, (None, None, 0, epoch))
        named = sha(b"baton/1/case_evidence\0", charge["evidence"])
        if seal != sha(b"baton/1/case_seal\0", owner, named, charge["salt"]) or begun >= epoch:
            raise Wrong("a case that was not announced")
        if accuser != owner or evidence["offence"] != DISPUTED_WORK:
            raise Wrong("a case of another, or of something that a rule decides")
        self.shown[name] = self._case(epoch, owner, evidence, bond), begun

    def end(self, epoch, header, earned):
        """The stakes as the checkpoint says they are after the epoch; self, or a copy of it.

        `earned` is what accounts were paid by others in four weeks: it is named beside a stake.
        """
        self.earned = earned
        disputes = sum(it["offence"] == LOST_DISPUTE for _, it, _ in self.accusations.values())
        if disputes > DISPUTES_MAX:
            raise Wrong(f"{disputes} disputes: this page tells {DISPUTES_MAX} apart in one epoch")
        beacon = header["draw"][0].get("beacon", b"") if "draw" in header else b""
        for lost in itertools.product((slice(1), slice(1, 2), slice(2)), repeat=disputes):
            tried = copy.deepcopy(self) if disputes else self
            tried.take(epoch, beacon, iter(lost))
            if tried.table() == header.get("stake_table", b""):
                return tried
        raise Wrong("its stakes are not those of its checkpoint")

    def take(self, epoch, beacon, lost):
        for order, (accuser, evidence, who) in sorted(self.accusations.items()):
            if evidence["offence"] == DISPUTED_WORK:
                self._open_at_once(epoch, order, accuser, evidence)
                continue
            guilty = who[next(lost)] if evidence["offence"] == LOST_DISPUTE else who
            for culprit, act in guilty:
                if act not in self.acts:
                    share = SHARES.get(evidence["offence"], OTHER_SHARE)
                    self._slash(epoch, culprit, act, share)
        self.accusations = {}
        self._open_shown(epoch)
        for name, case in sorted(self._there().items()):
            self._go_on(epoch, beacon, name, case)
        stays = {it["culprit"] for it in self._there().values()}
        for account in self.rows.keys() - stays:
            row = self.rows[account]
            self._put(account, {key: row[key] for key in row if not 0 <= key[0] <= epoch})
        self.before = dict(self.rows)

    def _put(self, account, row):
        self.rows[account] = {key: row[key] for key in sorted(row) if row[key]}
        if not self.rows[account]:
            del self.rows[account]

    def _slash(self, epoch, culprit, act, share):
        row = self.rows.get(culprit, {})
        total = sum(row.values())
        if total:
            left = total - min(total, max(LEAST, total * share // 10**6))
            amounts = smaller([*row.values()], left)
            self._put(culprit, dict(zip(row, amounts, strict=True)))
            self.acts[act] = epoch

    def _there(self):
        """The cases that take a place."""
        return {name: it for name, it in self.cases.items() if it["state"] not in ENDED}

    def _case(self, epoch, accuser, evidence, bond):
        _, asker, _ = opened(evidence["records"][0], TASK)
        ((culprit, act),) = accused(evidence, None)
        parties = {accuser, culprit, asker}
        case = {"culprit": culprit, "act": act, "parties": parties, "bond": bond}
        return case | {"begun": epoch, "state": WAITING, "sealed": True}

    def _open_at_once(self, epoch, order, accuser, evidence):
        """As cases were begun before they were announced."""
        case = self._case(epoch, accuser, evidence, 0) | {"sealed": False}
        is_known = any(it["act"] == case["act"] for it in self.cases.values())
        if not is_known and len(self._there()) < CASES_MAX:
            self.cases[sha(b"baton/1/case\0", order)] = case

    def _open_shown(self, epoch):
        """Give places to cases that were shown in this epoch, the highest bond first."""
        firsts = {}
        for name, (case, begun) in self.shown.items():
            key = begun, -case["bond"], name
            firsts[case["act"]] = min(key, firsts.get(case["act"], key))
        for name, (case, _) in sorted(self.shown.items(), key=lambda it: (-it[1][0]["bond"], it)):
            if firsts[case["act"]][2] == name:
                self._open(name, case)
        for name, notice in [*self.notices.items()]:
            if name in self.shown or notice[3] + NOTICE_EPOCHS <= epoch:
                del self.notices[name]
        self.shown = {}

    def _open(self, name, case):
        before = [it for it in self.cases.values() if it["act"] == case["act"]]
        is_known = case["act"] in self.acts or any(it["state"] != UNDECIDED for it in before)
        if is_known or len(before) >= ATTEMPTS_MAX or not self.rows.get(case["culprit"]):
            return
        there = self._there()
        bond, weakest = CASE_BOND * (1 + len(there)), None
        if len(there) >= CASES_MAX:
            untouched = (it for it in there if not self.sealed[it] and not self.found[it])
            weakest = min(untouched, key=lambda it: (there[it]["bond"], it), default=None)
            bond = bond if weakest is None else max(bond, 2 * there[weakest]["bond"])
        if case["bond"] < bond << len(before) or (len(there) >= CASES_MAX and weakest is None):
            return
        # One that gives way is as if it had never been.
        self.cases.pop(weakest, None)
        self.cases[name] = case

    def _jurors(self, case, *, still=True):
        """What each may weigh: staked on verifying since before the epoch, and still if asked."""
        key, found = (STAYS, VERIFY), {}
        for account in self.before.keys() - case["parties"]:
            before = self.before[account].get(key, 0)
            now = self.rows.get(account, {}).get(key, 0) if still else before
            if weight := min(before, now):
                found[account] = weight
        return found

    def _go_on(self, epoch, beacon, name, case):
        """Draw the jury of a case, or count what was found."""
        if case["state"] == WAITING:
            if not beacon or case["begun"] >= epoch:
                return
            # A jury is drawn as stakes were before any secret was told.
            weights = self._jurors(case, still=False)
            accounts = sorted(weights)
            bounds = [*itertools.accumulate(weights[it] for it in accounts)]
            words = (b"baton/1/juror\0" + beacon + name + bytes((at,)) for at in range(SEATS))
            points = (int.from_bytes(sha(it), "big") for it in words)
            seats = [accounts[bisect_right(bounds, it % bounds[-1])] for it in points if bounds]
            case |= {"seats": Counter(seats), "until": epoch + JURY_EPOCHS}
            case["state"] = JURY if seats else UNDECIDED
            return
        is_all, is_over = case["state"] in (EVERYBODY, EVERYBODY_TELLS), epoch >= case["until"]
        weights, found = self._jurors(case) if is_all else case["seats"], self.found[name]
        if case["sealed"]:
            sealed = self.sealed[name]
            found = {it: found[it] for it in found if found[it][1] == sealed.get(it)}
            have_told = found.keys() == sealed.keys()
            if case["state"] in (JURY_TELLS, EVERYBODY_TELLS):
                if not (have_told or is_over):
                    return
            elif not is_over and not (weights and weights.keys() <= sealed.keys()):
                return
            elif not have_told:
                case |= {"state": case["state"] + 1, "until": epoch + TELL_EPOCHS}
                return
            is_over = True
        self._count(epoch, name, case, weights, found, is_all, is_over)

    def _count(self, epoch, name, case, weights, found, is_all, is_over):
        wrong = sum(weights.get(it, 0) for it in found if found[it][0])
        said, total = sum(weights.get(it, 0) for it in found), sum(weights.values())
        of = said if is_over and is_all and said * 2 > total else total
        if total and max(wrong, said - wrong) * SEATS >= AGREEING * of:
            if wrong * SEATS >= AGREEING * of:
                self._slash(epoch, case["culprit"], case["act"], OTHER_SHARE)
            case["state"] = CLOSED
        elif is_over and not is_all:
            case |= {"state": EVERYBODY, "until": epoch + JURY_EPOCHS}
            # Who did not tell what it had sealed may look again.
            self.sealed[name] = {it: found[it][1] for it in found}
        elif is_over:
            case["state"] = UNDECIDED

    def table(self):
        """What all rows hash to."""
        whole = b""
        for account, row in sorted(self.rows.items()):
            parts = [{"amount": it, "role": key[1]} for key, it in row.items() if key[0] == STAYS]
            leaving = [
                {"amount": it, "role": role, "until": until}
                for (until, role), it in row.items()
                if until != STAYS
            ]
            fields = {"account": account, "leaving": leaving, "parts": parts}
            fields["worked"] = min(self.earned[account], row.get((STAYS, VERIFY), 0))
            whole += msgpack.packb({key: it for key, it in fields.items() if it})
        return sha(whole) if whole else b""
