"""How one member takes part in ending an epoch: seals, proposals, votes, and the checkpoint. Pure.

It gives what is to be written, what may be told to others once that is durable, and when to come
back. What it lacks (lists of orders, certificates) is fetched by others than it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from node.ledger.agreement import (
    PRECOMMIT,
    PREVOTE,
    ROUNDS_AHEAD_MAX,
    VALUES_MAX,
    Action,
    Agreement,
    Cast,
    Decide,
    Propose,
    RoundStep,
    Wait,
)
from node.ledger.committee import Committee, collected, places_in, proof_of
from node.ledger.equivocations import Equivocations
from node.ledger.jury_draw import DrawnBy, check_seal, drawn_by, is_awaited, withholds
from node.ledger.proposals import Content, Proposals
from node.ledger.replica import Replica
from node.ledger.rows import RowChange, round_key
from wire.checkpoint import (
    AgreementPhase,
    AgreementVote,
    Checkpoint,
    CheckpointHeader,
    Proposal,
    Seal,
)
from wire.content import ContentId, PeerId
from wire.errors import Malformed, WireError
from wire.kinds import Kind
from wire.latest import Latest
from wire.signed import Envelope, Signed, SignedRecord, open_signed, sign

# Where a proposal, of ours or one that we precommitted, is kept among the two votes of its round.
PROPOSED = 2
PROPOSALS_AHEAD_MAX = 8
HEARD_MAX = 4096
_KINDS: dict[int, type[SignedRecord]] = {
    Kind.SEAL: Seal,
    Kind.PROPOSAL: Proposal,
    Kind.AGREEMENT_VOTE: AgreementVote,
}
_Ballot = tuple[AgreementPhase, int, ContentId | None]


@dataclass(slots=True)
class ToDo:
    """What a member has to do now: write `rows`, then tell `signed`; come back after `waits`."""

    rows: list[RowChange] = field(default_factory=list)
    signed: list[bytes] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)


@dataclass(slots=True)
class EpochEnd:
    """The end of the epoch that runs, at one member."""

    replica: Replica
    seals: dict[int, Signed[Seal]] = field(default_factory=dict)
    # How the epoch has ended, once a quorum has decided.
    checkpoint: Checkpoint | None = None
    agreement: Agreement | None = None
    _to_do: ToDo = field(default_factory=ToDo)
    _proofs: dict[_Ballot, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    _proposals: Proposals = field(default_factory=Proposals)
    # Words of members that were taken in: they are told again and again.
    _heard: Latest[bytes, None] = field(default_factory=lambda: Latest(HEARD_MAX))
    # The round that this member is to lead, once enough seals are resolved.
    _leading: Propose | None = None
    _decided: Decide | None = None
    equivocations: Equivocations = field(default_factory=Equivocations)

    @property
    def committee(self) -> Committee:
        return self.replica.committee

    @property
    def takes_part(self) -> bool:
        """Whether this member votes on the end of this epoch."""
        return self.replica.place is not None and self.replica.seal is not None

    def take(self) -> ToDo:
        """What is to be done now; it is not given a second time."""
        taken, self._to_do = self._to_do, ToDo()
        return taken

    # What comes in

    def seal_now(self) -> None:
        """The epoch's time is over: seal it, unless this member takes no part."""
        made = self.replica.make_seal()
        if made is None or self.replica.place in self.seals:
            return
        seal, rows = made
        self._to_do.rows += rows
        self._to_do.signed.append(seal.raw)
        self.receive(seal.raw)

    def restore(self, kept: list[bytes]) -> None:
        """Go on after a stop: what this member signed about this end, in the order of rounds."""
        if (seal := self.replica.seal) is not None and self.replica.place is not None:
            self.seals[self.replica.place] = seal
        for raw in kept:
            match self._opened(raw):
                case Signed(record=AgreementVote() as vote) as signed:
                    self._agreement().restore(vote.phase, vote.round, vote.header)
                    self._note_proof(self._place(signed.signer), vote, signed.raw)
                case Signed(record=Proposal() as proposal) as signed:
                    self._take_proposal(self._place(signed.signer), proposal, signed)

    def receive(self, raw: bytes) -> None:
        """Take in what a member has signed; WireError if it is nothing of this epoch's end."""
        name = sha256(raw).digest()
        if name in self._heard:
            return
        signed = self._opened(raw)
        place = self._place(signed.signer)
        match signed.record:
            case Seal():
                self._take_seal(place, signed)
            case Proposal() as proposal:
                if proposal.round > self._agreement().running + PROPOSALS_AHEAD_MAX:
                    return
                self._take_proposal(place, proposal, signed)
            case AgreementVote() as vote:
                if vote.round > self._agreement().running + ROUNDS_AHEAD_MAX:
                    return
                self._note_proof(place, vote, raw)
                self.equivocations.note_vote(place, signed.signer, vote, raw)
                self._count(place, vote)
            case _:
                raise AssertionError(signed.record)
        self._heard[name] = None
        self.advance()

    def on_timeout(self, step: RoundStep, number: int) -> None:
        """A wait is over."""
        if self.agreement is not None:
            self._do(self.agreement.on_timeout(step, number))
            self.advance()

    def unresolved(self) -> list[bytes]:
        """Buckets of digests whose orders are not all known here.

        They are those of seals, of what proposals rest on, which may be other seals of a bad
        member, and of the decision.
        """
        wanted = dict.fromkeys(it.record.buckets for it in self.seals.values())
        wanted |= dict.fromkeys(self._proposals.rests_on(self._agreement().since))
        if self.checkpoint is not None:
            wanted = {CheckpointHeader.from_bytes(self.checkpoint.header).buckets: None}
        return [it for it in wanted if self.replica.resolve(it).orders is None]

    def orders(self) -> tuple[bytes, ...] | None:
        """The orders of the epoch that has ended, if all are known here."""
        assert self.checkpoint is not None
        raw = self.checkpoint.header
        # What seals name together may be in no member's own list: who judged it knows it.
        judged = self._proposals.orders_of(raw)
        return judged or self.replica.resolve(CheckpointHeader.from_bytes(raw).buckets).orders

    # Inside

    def _opened(self, raw: bytes) -> Signed[SignedRecord]:
        kind = _KINDS.get(raw[1]) if len(raw) > 1 else None
        if kind is None:
            raise Malformed("nothing that members sign about the end of an epoch")
        envelope = Envelope.read(raw, kind)
        record: Seal | Proposal | AgreementVote = envelope.claimed()  # type: ignore[assignment]
        if (record.network, record.epoch) != (self.replica.network, self.replica.epoch):
            raise Malformed("a word about another epoch, or of another network")
        self._place(envelope.signer)
        return envelope.checked(record)

    def _place(self, signer: PeerId) -> int:
        place = self.committee.index.get(signer)
        if place is None:
            raise Malformed(f"{signer.short} is no member")
        return place

    def _take_seal(self, place: int, signed: Signed[SignedRecord]) -> None:
        seal = open_signed(signed.raw, Seal)
        check_seal(seal, self.replica.tip, place)
        self.seals.setdefault(place, seal)
        self.equivocations.note_seal(place, seal)
        if self.committee.has_honest(self.seals) and self.replica.place not in self.seals:
            self.seal_now()

    def _take_proposal(self, place: int, proposal: Proposal, signed: Signed[SignedRecord]) -> None:
        if place != self._agreement().leader(proposal.round):
            return
        self._proposals.note(Signed(proposal, signed.signer, signed.raw, signed.id))
        for raw in proposal.seals:
            seal = self._opened(raw)
            if isinstance(seal.record, Seal):
                self._proposals.note_seal(proposal.round, seal.record)
                self._take_seal(self._place(seal.signer), seal)

    def _note_proof(self, place: int, vote: AgreementVote, raw: bytes) -> None:
        proof = proof_of(AgreementVote, raw)
        alike = [it for it in self._proofs if it[:2] == (vote.phase, vote.round)]
        if sum(place in self._proofs[it] for it in alike) < VALUES_MAX:
            self._proofs[vote.phase, vote.round, vote.header].setdefault(place, proof)

    def _count(self, place: int, vote: AgreementVote) -> None:
        self._do(self._agreement().on_vote(place, vote.phase, vote.round, vote.header))

    def _agreement(self) -> Agreement:
        if self.agreement is None:
            first = self.replica.epoch % len(self.committee.members)
            place = -1 if self.replica.place is None else self.replica.place
            self.agreement = Agreement(self.committee, place, first)
        return self.agreement

    def advance(self) -> None:
        """Go on with what can be done by now: begin, judge proposals, lead, decide."""
        agreement = self._agreement()
        if self.takes_part and agreement.round < 0 and self.committee.is_quorum(self.seals):
            self._do(agreement.begin())
        for number, signed in self._proposals.due(self._agreement().running):
            self._judge(number, signed)
        if self._leading is not None and self._leading.round == agreement.round:
            self._lead(self._leading)
        if self._decided is not None and self.checkpoint is None:
            self._conclude(self._decided)

    def _judge(self, number: int, signed: Signed[Proposal]) -> None:
        """Find out whether a proposal is right, as soon as all that it rests on is known here."""
        proposal = signed.record
        value = ContentId.of(proposal.header)
        try:
            self._check_prevotes(proposal, value)
            orders, seals = self._orders_of(proposal.seals)
            if orders is None:
                return
            header = self.replica.outcome(orders, self._by(seals)).header.to_bytes()
            good = header == proposal.header and not withholds(
                proposal, seals, self.seals, self.replica.tip, len(self.committee.members)
            )
        except WireError:
            good = False
        self._proposals.judged.add(number)
        if good and orders is not None:
            self._proposals.contents[value] = Content(proposal.header, proposal.seals, orders)
        self._do(self._agreement().on_proposal(number, value, proposal.valid_round, good=good))

    def _by(self, seals: Mapping[int, Signed[Seal]]) -> DrawnBy:
        return drawn_by(seals, self.replica.tip, self.committee)

    def _check_prevotes(self, proposal: Proposal, value: ContentId) -> None:
        if proposal.prevotes is None or proposal.valid_round is None:
            return
        vote = self._vote(PREVOTE, proposal.valid_round, value)
        self.committee.check(vote, proposal.prevotes)
        for at, proof in zip(
            places_in(proposal.prevotes.members), proposal.prevotes.proofs, strict=True
        ):
            self._proofs[PREVOTE, proposal.valid_round, value].setdefault(at, proof)
            self._do(
                self._agreement().on_vote(at, PREVOTE, proposal.valid_round, value, proven=True)
            )

    def _orders_of(
        self, seals: tuple[bytes, ...]
    ) -> tuple[tuple[bytes, ...] | None, dict[int, Signed[Seal]]]:
        """All orders that these seals name, None while some are not known here; and the seals."""
        signers: dict[int, Signed[Seal]] = {}
        found: set[bytes] = set()
        for raw in seals:
            seal = self._opened(raw)
            if not isinstance(seal.record, Seal):
                raise Malformed("a proposal rests on seals")
            at, sealed = self._place(seal.signer), open_signed(raw, Seal)
            check_seal(sealed, self.replica.tip, at)
            signers[at] = sealed
            named = self.replica.resolve(seal.record.buckets).orders
            if named is None:
                return None, {}
            found.update(named)
        if not self.committee.is_quorum(signers) or len(signers) != len(seals):
            raise Malformed("a proposal rests on the seals of a quorum, each once")
        return tuple(sorted(found)), signers

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Wait():
                    self._to_do.waits.append(action)
                case Cast():
                    self._cast(action)
                case Propose():
                    self._leading = action
                    self._lead(action)
                case Decide():
                    self._decided = action
                    self._conclude(action)

    def _vote(self, phase: AgreementPhase, number: int, value: ContentId | None) -> AgreementVote:
        return AgreementVote(
            network=self.replica.network,
            epoch=self.replica.epoch,
            round=number,
            phase=phase,
            header=value,
        )

    def _cast(self, action: Cast) -> None:
        if not self.takes_part:
            return
        signed = sign(self._vote(action.phase, action.round, action.value), self.replica.key)
        key = round_key(self.replica.epoch, action.round, action.phase)
        if action.phase is PRECOMMIT and action.value is not None:
            # Locked on it, this member has to be able to propose it again, whoever has led.
            proposed = self._proposals.signed[action.round].raw
            kept_at = round_key(self.replica.epoch, action.round, PROPOSED)
            self._to_do.rows.append((kept_at, proposed))
        self._keep_and_tell(key, signed.raw)
        place = self._place(signed.signer)
        self._proofs[action.phase, action.round, action.value][place] = proof_of(
            AgreementVote, signed.raw
        )
        self._do(self._agreement().on_vote(place, action.phase, action.round, action.value))

    def _keep_and_tell(self, key: bytes, raw: bytes) -> None:
        self._to_do.rows.append((key, raw))
        self._to_do.signed.append(raw)

    def _lead(self, action: Propose) -> None:
        if not self.takes_part:
            return
        content = (
            self._fresh() if action.value is None else self._proposals.contents.get(action.value)
        )
        if content is None:
            return
        self._leading = None
        prevotes = None
        if action.value is not None and action.valid_round is not None:
            proofs = self._proofs[PREVOTE, action.valid_round, action.value]
            # After a stop those of bad members may be gone: then it is proposed as if it were new.
            prevotes = collected(proofs) if self.committee.is_quorum(proofs) else None
        proposal = Proposal(
            network=self.replica.network,
            epoch=self.replica.epoch,
            round=action.round,
            header=content.header,
            seals=content.seals,
            valid_round=None if prevotes is None else action.valid_round,
            prevotes=prevotes,
        )
        if action.round in self._proposals.signed:
            # Of this member before a stop: there is no second proposal of a round.
            return
        signed = sign(proposal, self.replica.key)
        self._keep_and_tell(round_key(self.replica.epoch, action.round, PROPOSED), signed.raw)
        self._proposals.note(signed)
        self._judge(action.round, signed)

    def _fresh(self) -> Content | None:
        """What this member would propose: all orders that the seals it can resolve name."""
        usable = {
            at: seal
            for at, seal in self.seals.items()
            if self.replica.resolve(seal.record.buckets).orders is not None
        }
        if not self.committee.is_quorum(usable):
            return None
        if is_awaited(usable, self.replica.tip, self._agreement().round):
            return None
        seals = tuple(usable[at].raw for at in sorted(usable))
        try:
            orders, signers = self._orders_of(seals)
            assert orders is not None
            header = self.replica.outcome(orders, self._by(signers)).header.to_bytes()
        except WireError:
            # Too many members are bad: what they sealed is not complete. More seals may mend it.
            return None
        return Content(header, seals, orders)

    def _conclude(self, decision: Decide) -> None:
        """The checkpoint, if the header that was decided is known here."""
        header = self._proposals.header_of(decision.value)
        if header is None:
            return
        proofs = self._proofs[PRECOMMIT, decision.round, decision.value]
        self.checkpoint = Checkpoint(
            header=header, round=decision.round, signatures=collected(proofs)
        )
