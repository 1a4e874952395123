"""One sample of every record, with no field at its default, from one fixed key.

The golden bytes of each stand in `test_golden.py`; the other tests alter, cut and flip these.
"""

import dataclasses
import importlib
import pkgutil
from typing import Any

import wire
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.app import (
    AppDrawn,
    AppKey,
    AppKeyTold,
    AppMode,
    AppPayment,
    AppPolicy,
    AskAppKey,
    AskRevokedKeys,
    RevokedKeys,
    RevokedKeysTold,
)
from wire.calibration import Calibration, HeldOut
from wire.checkpoint import (
    AgreementPhase,
    AgreementVote,
    Checkpoint,
    CheckpointHeader,
    JuryDraw,
    Proposal,
    Seal,
    buckets_of,
)
from wire.checks import CheckOutcome, Checks, OpenChecks, OrderedCheck, Verdicts
from wire.commitment import (
    Commitments,
    OrderedCommitment,
    OrderedTelling,
    TellVerdict,
    TellVerdicts,
    VerdictCommitted,
)
from wire.compact import BatchRoot
from wire.content import ContentId
from wire.contribution import AskContribution, Contributed
from wire.dispute import (
    Children,
    Commitment,
    Committed,
    Contest,
    Descend,
    Descent,
    Dispute,
    Reveal,
    Revealed,
    Settled,
    StateOpening,
)
from wire.evidence import Evidence, OffenceKind
from wire.feed import AskFeed, FeedEntry, FeedFork, FeedPage, FeedRecord, SlotSpan
from wire.fetch import (
    AttestedFetch,
    Column,
    Extraction,
    FetchAgreement,
    FetchedPage,
    HeaderField,
    Paging,
    Preparation,
    PreparationStep,
    SourceRecord,
)
from wire.generation import (
    Alternative,
    Ending,
    Generation,
    PromptToken,
    Sketch,
    Token,
    TokenBias,
)
from wire.jury import (
    CaseNotice,
    CaseRow,
    CaseState,
    DrawnJury,
    JurorFinding,
    JurySteps,
    NoticeRow,
    SealedFinding,
    ShownCase,
)
from wire.kinds import Level, RefusalCode, Role
from wire.ledger import (
    AccountOrder,
    Accusation,
    Acknowledgement,
    Certificate,
    Genesis,
    Grant,
    Member,
    ModelPart,
    Opening,
    Payment,
    Redemption,
    Settlement,
    Signatures,
    TopUp,
    Vote,
    Voucher,
)
from wire.ledger_message import (
    AccountState,
    Acknowledged,
    AskAccount,
    AskBucket,
    AskCertificates,
    AskCheckpoint,
    AskCredits,
    BucketOrders,
    Certificates,
    CheckpointReply,
    Confirm,
    CreditsGiven,
    EpochNews,
    SubmitOrder,
    Voted,
)
from wire.log import AskHeads, AskPlace, LogFork, LogHead, LogNews, LogPlace, LogPlaces
from wire.membership import (
    Admitted,
    Admitter,
    ClaimInvite,
    ClaimNonce,
    ClaimSigned,
    ClaimStatement,
    Invite,
    Membership,
    Renew,
    Revoked,
    RevokedNews,
)
from wire.message import (
    Accept,
    BlockReply,
    BlocksComing,
    BlocksSent,
    Check,
    Goodbye,
    Hello,
    Keep,
    Keeping,
    Message,
    Newer,
    Offer,
    Piece,
    Ping,
    Pong,
    Progress,
    Quote,
    Quoted,
    Refuse,
    Result,
    Seek,
    Swap,
    VerdictReply,
    Want,
    WantBlocks,
    Welcome,
)
from wire.model import Manifest, ModelFile
from wire.motion import (
    Ballot,
    BuilderClaim,
    FundGrant,
    HouseCount,
    ModelClaim,
    Motion,
    MotionRow,
    MotionState,
    Parameter,
    ParameterChange,
    RegisteredModel,
    SeatClaim,
)
from wire.order import (
    Bundle,
    Close,
    Open,
    Opened,
    OrderItem,
    OrderPiece,
    OrderRefusal,
    Outcomes,
    Places,
    Taken,
    TaskOutcome,
    Withdraw,
)
from wire.ownership import Ownership
from wire.payload import Hit, Hits, Index, IndexPart, Passages, Question, Texts, Vectors
from wire.payment_message import Paid, Pay
from wire.reach import DialBack, DialedBack, Reservation, Reserve, Reserved
from wire.receipt import (
    Answer,
    MixedDraw,
    Receipt,
    ReplayStatistics,
    Verdict,
    VerdictCommitment,
    VerdictOpening,
)
from wire.rows import RowBundle
from wire.schema import Record
from wire.segment import Segment
from wire.signed import SignedRecord
from wire.signing import SigningKey
from wire.stage import (
    StageClose,
    StageLeg,
    StageOpen,
    StageOpened,
    StagePass,
    StagePassed,
    StageRows,
    StageSign,
    StageSigned,
)
from wire.stake import AskStakes, LeavingPart, StakePart, StakeRow, StakeRows
from wire.tariff import Charge, ChargeKind, ModelPrice, Tariff
from wire.task import CheckPolicy, Stage, Task
from wire.tensors import CircuitProof, Tensor, Tensors
from wire.usage import ModelUse, UseLine

KEY = SigningKey(bytes(range(32)))
OTHER_KEY = SigningKey(bytes(range(1, 33)))
PEERS = tuple(sorted((KEY.peer, OTHER_KEY.peer)))
ADMITTER = Admitter(peer=KEY.peer, addresses=("/ip4/45.1.0.10/tcp/4747",))
MODEL = ContentId.of(b"model")
BLOCK = ContentId.of(b"block")
TREE = ContentId.of_tree(b"node")
INSTANCE = b"instance"
SECRET = bytes(32)

PRICE = ModelPrice(model=BLOCK, base=1000, given=300_000_000, made=600_000_000)
CHARGE = Charge(tariff=b"tariff", stage=1, kind=ChargeKind.PART, units=16, amount=12_000)
OFFER = ModelOffer(model=MODEL, name="minilm", units_per_s=812.5)
FILE = ModelFile(name="model.safetensors", content=TREE, size_bytes=90_868_376)
REPLAY = ReplayStatistics(
    positions=256,
    mismatches=2,
    first=17,
    sum_millionths=31_020,
    greatest_millionths=31_000,
    table=BLOCK,
)
HELD_OUT = HeldOut(tokens=128, answers=40, alarms=1)
BIAS = TokenBias(token=5, millionths=-100_000_000)
ALTERNATIVE = Alternative(text=b" a", logprob_millionths=-1_500_000)
CIRCUIT_PROOF = CircuitProof(system="ezkl 23.0.5", srs=bytes(range(32)), key=SECRET, proof=b"proof")
TENSOR = Tensor(name="x", kind="float32", shape=(1, 2), data=bytes(range(8)))
FETCH = Stage(
    role=Role.DATA,
    operation="fetch",
    model=None,
    parameters={"url": "https://example.org", "count": 3, "fresh": True},
)
EMBED = Stage(role=Role.INFER, operation="embed", model=MODEL, parameters={"scale": 0.5})
CHECKING = CheckPolicy(level=Level.REPLAYED, verifiers=3, needed=2, secret_hash=bytes(32))
PART = IndexPart(passages=BLOCK, vectors=TREE)
PROGRESS = Progress(units=2, data=b"streamed")
ITEM = OrderItem(
    tag=7,
    task=b"task",
    input=b"input",
    deadline_ms=30_000,
    units=16,
    root=1,
    leaf=3,
    lane=b"lane",
    receipts=(b"before",),
)
ROOT = BatchRoot(signature=bytes(range(64)), count=9, beside=bytes(range(32, 96)))
DONE = TaskOutcome(
    tag=7,
    receipt=b"receipt",
    output=b"output",
    refusal=None,
    root=1,
    leaf=8,
    later=(b"later",),
    source=b"source",
)
NOT_DONE = OrderRefusal(code=RefusalCode.BUSY, reason="the queue is full", retry_after_ms=1000)
FAILED = TaskOutcome(tag=8, receipt=None, output=None, refusal=NOT_DONE)
PART_OF_IT = OrderPiece(tag=9, position=2, units=1, data=b"piece")
CHECK = Check(
    task=b"task",
    receipts=(b"receipt",),
    secret=SECRET,
    input=None,
    output=b"output",
    deadline_ms=30_000,
)
CHECK_ON_ORDER = OrderedCheck(tag=7, asked=CHECK)
CHECKED = CheckOutcome(tag=7, verdict=b"verdict", refusal=None)
NOT_CHECKED = CheckOutcome(tag=8, verdict=None, refusal=NOT_DONE)
ROWS = StageRows(
    tables=(b"\x03\x00\x01\x00", b"\x00\x00"),
    owners=b"\x01\x00",
    places=b"\x05\x00\x00\x00\x81\x00\x00\x00",
    data=bytes(range(16)),
)
STATE_OPENING = StateOpening(layer=7, state=b"state", path=bytes(range(64)))
DESCENT = Descent(
    prover_left=bytes(range(32)),
    prover_right=bytes(range(1, 33)),
    challenger_left=bytes(range(2, 34)),
    challenger_right=bytes(range(3, 35)),
)
VERDICT_OPENING = VerdictOpening(salt=SECRET, shown=SECRET, count=2)
PROOF = bytes(80)
MIXED_DRAW = MixedDraw(
    stage=1,
    index=2,
    count=3,
    path=SECRET,
    proofs=(PROOF,) * limits.CONTRIBUTORS,
    absent=(KEY.peer,),
    besides=(0, 3),
)
OWNERSHIP = Ownership.signed_by(KEY, OTHER_KEY.peer)
VERDICT_COMMITMENT = VerdictCommitment(stage=1, verifier=KEY.peer, commitment=SECRET)
ORDERED_COMMITMENT = OrderedCommitment(tag=7, commitment=SECRET)
ORDERED_TELLING = OrderedTelling(tag=7, shown=SECRET, count=2)
HIT = Hit(passage=BLOCK, row=7, score=0.75)

DIGEST = bytes(range(32))
BUCKETS = buckets_of((DIGEST,))
MEMBERS = tuple(Member(key=key, weight=number) for number, key in enumerate(PEERS, start=1))
GRANT = Grant(account=KEY.peer, amount=5_000_000)
PAYMENT = Payment(to=OTHER_KEY.peer, amount=20_000)
OPENING = Opening(payee=OTHER_KEY.peer, deposit=1_000_000, expiry=168)
TOP_UP = TopUp(channel=DIGEST, amount=2_000_000, expiry=200)
REDEMPTION = Redemption(channel=DIGEST, voucher=b"voucher", release=True)
SIGNATURES = Signatures(members=0b101, proofs=(bytes(64), bytes(range(64))))

SLOT = SlotSpan(first_ms=1_700_000_000_000, last_ms=1_700_000_000_000, slots=1)
COLUMN = Column(name="price", select="last.price")
HEADER = HeaderField(name="accept", value="application/json")
STEP = PreparationStep(name="stack", parameters={"columns": "open", "kind": "float32"})
PREPARATION = Preparation(steps=(STEP,))
EXTRACTION = Extraction(
    format="json",
    select="data",
    columns=(COLUMN,),
    encoding="",
    delimiter="",
    heading=True,
    paged=True,
    prepare=(PREPARATION,),
)
PAGING = Paging(next="links.next", parameter="", start=1, step=1, pages_max=10)
PAGE = FetchedPage(
    url="https://example.org/prices", status=200, certificates=bytes(range(32)), body=BLOCK
)
STAKE_ROW = StakeRow(
    account=KEY.peer,
    parts=(StakePart(role=Role.VERIFY, amount=50_000_000),),
    leaving=(LeavingPart(role=Role.VERIFY, amount=20_000_000, until=21),),
)
SEALED_FINDING = SealedFinding(case=DIGEST, seal=DIGEST)
DRAW = JuryDraw(secrets_of=7, beacon=DIGEST, juries=DIGEST)
CHANGE = ParameterChange(parameter=Parameter.GROWTH, value=80_000)
FUND_GRANT = FundGrant(to=KEY.peer, step=100_000_000, steps=4, use=50_000_000)
MOTION = Motion(
    title="a grant", why="for a page", epochs=168, bond=1_000_000, change=None, grant=FUND_GRANT
)
SAMPLES: tuple[Record, ...] = (
    OFFER,
    Advert(
        version=1,
        seq=1_700_000_000_123,
        instance=INSTANCE,
        issued_at_s=1_700_000_000,
        ttl_s=90,
        addresses=("/ip4/127.0.0.1/tcp/4001",),
        roles=0b111,
        models=(OFFER,),
        free_slots=2,
        queue_s=1.5,
        price=5,
        leaving=False,
        tariffs=(BLOCK,),
        stake=50_000_000,
    ),
    FETCH,
    CHECKING,
    Task(
        version=1,
        stages=(FETCH, EMBED),
        input=BLOCK,
        checking=CHECKING,
        issued_at_ms=1_700_000_000_000,
        deadline_s=60,
        price_max=100,
        nonce=bytes(range(16)),
    ),
    Receipt(
        task=BLOCK,
        stage=1,
        role=Role.INFER,
        operation="embed",
        model=MODEL,
        input=BLOCK,
        output=TREE,
        output_size_bytes=1536,
        units=1,
        started_at_ms=1_700_000_000_500,
        duration_ms=12,
        profile="tinygrad-0.14.0/float32",
        previous=BLOCK,
        reused=True,
    ),
    Verdict(
        receipt=BLOCK,
        secret=SECRET,
        agrees=True,
        could_check=True,
        rows=8,
        sampled=(0, 3, 5, 7),
        worst_ppb=(0, 12, 300, 70_000),
        profile="tinygrad-0.14.0/float32",
        reason="within tolerance",
        checked_at_ms=1_700_000_001_000,
        duration_ms=9,
        replay=(REPLAY,),
        opening=(VERDICT_OPENING,),
    ),
    VERDICT_OPENING,
    VERDICT_COMMITMENT,
    MIXED_DRAW,
    OWNERSHIP,
    Answer(
        task=b"task",
        receipts=(b"receipt",),
        secret=SECRET,
        candidates=PEERS,
        verdicts=(b"verdict",),
        attempts=1,
        answered_at_ms=1_700_000_002_000,
        duration_ms=1500,
        charges=(CHARGE,),
        commitments=(VERDICT_COMMITMENT,),
        mixed=(MIXED_DRAW,),
        owned=(OWNERSHIP,),
    ),
    PRICE,
    Tariff(network=BLOCK, models=(PRICE,), verdict=1000, increment=900_000),
    CHARGE,
    FILE,
    Manifest(
        name="minilm",
        format="bert-safetensors",
        profile="float32",
        operations=("embed",),
        files=(FILE,),
        parameters={"layers": 6, "pooling": "mean"},
        tolerance=0.0005,
    ),
    Texts(texts=("one", "zwei", "три")),
    Passages(
        source="https://example.org",
        first=256,
        total=300,
        passages=(BLOCK, TREE),
        attested=(BLOCK,),
    ),
    FetchAgreement(
        source=BLOCK,
        quorum=3,
        agree="median 0.5%",
        round=bytes(range(16)),
        answers=(BLOCK, BLOCK, BLOCK),
        agreeing=(KEY.peer,),
        outliers=(KEY.peer,),
        output=BLOCK,
    ),
    COLUMN,
    HEADER,
    EXTRACTION,
    SourceRecord(
        kind="http",
        place="https://example.org/prices",
        glob="",
        extraction=EXTRACTION,
        headers=(HEADER,),
        kept_headers=("date",),
        query="SELECT 1",
        credential="reader",
        paging=(PAGING,),
    ),
    PAGING,
    PAGE,
    STEP,
    PREPARATION,
    AttestedFetch(
        source=BLOCK,
        urls=("https://example.org/prices", "https://example.org/v2/prices"),
        fetched_at_ms=1_700_000_000_500,
        status=200,
        headers=(HEADER,),
        certificates=bytes(range(32)),
        body=TREE,
        body_size_bytes=300_000,
        extraction=EXTRACTION,
        output=BLOCK,
        pages=(PAGE,),
        folders=b"node",
        more=True,
    ),
    Vectors(dimensions=2, rows=1, data=bytes(range(8)), tokens=(3,)),
    PART,
    Index(model=MODEL, parts=(PART,)),
    Question(text="what is a baton?", index=TREE, count=3),
    HIT,
    Hits(hits=(HIT,)),
    Generation(
        prompt="Once",
        messages="",
        tools="[]",
        schema="{}",
        stop=("\n",),
        template='{"thinking":false}',
        bias=(BIAS,),
    ),
    BIAS,
    PromptToken(id=7, text=b" upon", logprob_millionths=None, top=(ALTERNATIVE,)),
    ALTERNATIVE,
    Token(id=7, text=b" upon", logprob_millionths=-250_000, top=(ALTERNATIVE,)),
    Sketch(chunks=bytes(range(34))),
    Ending(reason="stop", prompt_tokens=3, tokens=2, text_bytes=9),
    HELD_OUT,
    Calibration(
        model=BLOCK,
        profiles=("tinygrad f32 CPU", "tinygrad f32 CL"),
        tokens=5020,
        margins_millionths=(20, 31_000),
        slack_millionths=62_000,
        held_out=(HELD_OUT,),
        made_at_ms=1_700_000_000_000,
    ),
    REPLAY,
    TENSOR,
    Tensors(tensors=(TENSOR,), proofs=(CIRCUIT_PROOF,)),
    CIRCUIT_PROOF,
    Hello(
        version=1,
        network="main",
        instance=INSTANCE,
        wall_ms=1_700_000_000_000,
        wanted=64,
        advert=b"a",
        membership=b"membership",
        invite=b"invite",
    ),
    Welcome(
        version=1,
        instance=INSTANCE,
        wall_ms=1_700_000_000_001,
        same_key=b"advert",
        peers=1000,
        adverts=(b"a", b"b"),
        membership=b"membership",
        invite=b"invite",
    ),
    Ping(instance=INSTANCE),
    Pong(same_key=None),
    Swap(instance=INSTANCE, digest=bytes(range(32))),
    Newer(adverts=(b"a", b"b"), wanted=bytes(range(16)), same_key=None),
    Seek(role=Role.INFER, model=MODEL),
    Goodbye(advert=b"advert"),
    Quote(role=Role.INFER, operation="complete", model=MODEL, units=16, deadline_ms=30_000),
    Quoted(expected_ms=1200),
    PROGRESS,
    Offer(
        task=b"task",
        stage=1,
        receipts=(b"receipt",),
        input=b"input",
        deadline_ms=30_000,
        units=16,
        resume=PROGRESS,
        avoid=(KEY.peer,),
    ),
    Accept(expected_ms=250),
    Refuse(code=RefusalCode.BUSY, reason="the queue is full", retry_after_ms=1000),
    Piece(position=2, units=1, data=b"piece"),
    Result(receipts=(b"receipt",), output=b"output", source=b"source"),
    CHECK,
    VerdictReply(verdict=b"verdict"),
    VerdictCommitted(digest=SECRET),
    AskContribution(root=SECRET, count=3),
    Contributed(proof=PROOF),
    TellVerdict(shown=SECRET, count=2),
    ORDERED_COMMITMENT,
    Commitments(items=(ORDERED_COMMITMENT,)),
    ORDERED_TELLING,
    TellVerdicts(items=(ORDERED_TELLING,)),
    Want(block=BLOCK),
    WantBlocks(blocks=(BLOCK, BLOCK)),
    BlocksComing(places=b"\x00\x01"),
    BlocksSent(count=2),
    BlockReply(data=b"block"),
    Keep(content=TREE, size_bytes=300_000, keep_s=604_800, deadline_ms=60_000),
    Keeping(keep_s=86_400),
    DialBack(port=4747, relay=(KEY.peer,)),
    DialedBack(host="203.0.113.7", reached=True),
    Reservation(
        kept=KEY.peer,
        issued_at_s=1_700_000_000,
        lease_s=1800,
        lines_max=16,
        bytes_per_s=2_000_000,
    ),
    Reserve(lease_s=1800),
    Reserved(reservation=b"reservation"),
    ADMITTER,
    Invite(
        id=bytes(range(16)),
        name="home",
        claim_key=OTHER_KEY.peer,
        issued_at_s=1_700_000_000,
        not_after_s=1_700_086_400,
        uses_max=3,
        roles=6,
        label="bob",
        admitters=(ADMITTER,),
    ),
    Membership(
        network=KEY.peer,
        peer=OTHER_KEY.peer,
        roles=6,
        label="bob",
        issued_at_s=1_700_000_000,
        not_after_s=1_702_592_000,
        serial=1_700_000_000,
        invite=bytes(range(16)),
    ),
    Revoked(version=1_700_000_001, invites=(bytes(range(16)),), peers=(OTHER_KEY.peer,)),
    ClaimStatement(
        network=KEY.peer,
        invite=bytes(range(16)),
        nonce=bytes(range(32)),
        newcomer=OTHER_KEY.peer,
        admitter=KEY.peer,
    ),
    ClaimInvite(invite=b"invite"),
    ClaimNonce(nonce=bytes(range(32))),
    ClaimSigned(statement=b"statement"),
    Admitted(membership=b"membership", invite=b"invite"),
    Renew(serial=1_700_000_000),
    RevokedNews(version=1_700_000_001, revoked=b"revoked"),
    Open(wanted=48, speaks=5),
    Opened(places=40),
    ITEM,
    ROOT,
    Bundle(items=(ITEM,), roots=(ROOT,)),
    NOT_DONE,
    DONE,
    PART_OF_IT,
    Outcomes(items=(DONE, FAILED), pieces=(PART_OF_IT,), places=2, roots=(ROOT,)),
    Places(more=3),
    Taken(tags=(7, 9)),
    Withdraw(unwanted=(9,)),
    Close(tasks=12),
    OpenChecks(checks=48),
    CHECK_ON_ORDER,
    Checks(items=(CHECK_ON_ORDER,)),
    CHECKED,
    Verdicts(items=(CHECKED, NOT_CHECKED), places=2),
    ROWS,
    StageOpen(model=MODEL, first=18, last=29, pages=256),
    StageOpened(pages=256),
    StagePass(number=7, rows=ROWS),
    StagePassed(number=7, data=bytes(range(16))),
    StageClose(passes=8),
    StageSign(table=b"\x03\x00\x01\x00", rows=130),
    StageSigned(leg=b"leg"),
    Segment(
        task=BLOCK,
        stage=1,
        first=2,
        units=3,
        size_bytes=300,
        shown=SECRET,
        built_on=BLOCK,
        profile="tinygrad-0.14.0/float32",
        signed_at_ms=1_700_000_000_500,
    ),
    StageLeg(
        model=MODEL,
        first=18,
        last=29,
        asker=KEY.peer,
        rows=130,
        input=DIGEST,
        output=bytes(range(1, 33)),
        signed_at_ms=1_700_000_000_000,
    ),
    *MEMBERS[:1],
    GRANT,
    Genesis(
        version=1,
        name="home",
        nonce=bytes(range(16)),
        epoch_s=3600,
        account_min=1000,
        fund=995_000_000,
        grants=(GRANT,),
        members=MEMBERS,
    ),
    PAYMENT,
    OPENING,
    TOP_UP,
    REDEMPTION,
    AccountOrder(network=BLOCK, epoch=7, sequence=3, pay=(PAYMENT,)),
    Vote(network=BLOCK, epoch=7, account=KEY.peer, sequence=3, order=DIGEST),
    Acknowledgement(network=BLOCK, epoch=7, order=DIGEST),
    SIGNATURES,
    Certificate(order=b"order", votes=SIGNATURES),
    Settlement(certificate=b"certificate", acknowledgements=SIGNATURES),
    Pay(channel=DIGEST, tariff=BLOCK, voucher=b"voucher", settlement=b"settlement"),
    Paid(charged=40_000, voucher=b"voucher"),
    ModelPart(model=BLOCK, amount=200_000),
    Voucher(
        network=BLOCK,
        channel=DIGEST,
        total=300_000,
        tasks=12,
        receipt=TREE,
        models=(ModelPart(model=BLOCK, amount=200_000),),
    ),
    Seal(network=BLOCK, epoch=7, count=1, buckets=BUCKETS, secret=b"secret"),
    CheckpointHeader(
        network=BLOCK,
        epoch=7,
        previous=BLOCK,
        count=1,
        buckets=BUCKETS,
        state=DIGEST,
        balances=4_000_000,
        deposits=1_000_000,
        fund=995_000_000,
        members=MEMBERS,
        stakes=70_000_000,
        stake_table=DIGEST,
        usage=DIGEST,
        bonds=2_000_000,
        draw=(DRAW,),
    ),
    DRAW,
    JurorFinding(case=DIGEST, wrong=True, salt=DIGEST),
    SEALED_FINDING,
    CaseNotice(seal=DIGEST, bond=1_300_000),
    ShownCase(case=DIGEST, salt=DIGEST, evidence=b"evidence"),
    NoticeRow(accuser=KEY.peer, seal=DIGEST, bond=1_300_000, epoch=7),
    JurySteps(commit=(SEALED_FINDING,)),
    DrawnJury(case=DIGEST, culprit=KEY.peer, evidence=DIGEST, seats=(KEY.peer,) * 13),
    CaseRow(
        accuser=KEY.peer,
        culprit=KEY.peer,
        asker=KEY.peer,
        act=DIGEST,
        digest=DIGEST,
        bond=1_300_000,
        begun=7,
        until=9,
        state=CaseState.JURY,
        evidence=b"evidence",
        seats=(KEY.peer,) * 13,
        wrong=3,
        right=1,
        attempt=2,
    ),
    CHANGE,
    FUND_GRANT,
    MOTION,
    Ballot(motion=DIGEST, yes=True),
    BuilderClaim(account=KEY.peer, matched=True),
    SeatClaim(member=KEY.peer, weight=1, since=7),
    ModelClaim(model=BLOCK, author=KEY.peer, share=50_000),
    RegisteredModel(author=KEY.peer, share=50_000, motion=DIGEST),
    HouseCount(yes=3_000_000, no=1_000_000, total=9_000_000),
    MotionRow(
        author=KEY.peer,
        motion=MOTION,
        begun=7,
        until=175,
        state=MotionState.PASSED,
        decided=9,
        stake=HouseCount(yes=3_000_000, no=1_000_000, total=9_000_000),
        using=None,
        paid=2,
        used=500_000,
    ),
    ModelUse(model=BLOCK, paid=200_000, author=10_000),
    UseLine(
        payer=KEY.peer,
        payee=KEY.peer,
        paid=300_000,
        growth=15_000,
        tasks=12,
        models=(ModelUse(model=BLOCK, paid=200_000, author=10_000),),
    ),
    AgreementVote(network=BLOCK, epoch=7, round=2, phase=AgreementPhase.PRECOMMIT, header=BLOCK),
    Proposal(
        network=BLOCK,
        epoch=7,
        round=2,
        header=b"header",
        seals=(b"seal", b"another"),
        valid_round=1,
        prevotes=SIGNATURES,
    ),
    Checkpoint(header=b"header", round=2, signatures=SIGNATURES),
    SubmitOrder(order=b"order"),
    Voted(vote=b"vote"),
    Confirm(certificate=b"certificate"),
    Acknowledged(acknowledgement=b"acknowledgement"),
    AskAccount(account=KEY.peer),
    AccountState(
        epoch=7,
        sequence=3,
        balance=4_000_000,
        deposits=1_000_000,
        channels=1,
        stake=STAKE_ROW.parts,
        leaving=STAKE_ROW.leaving,
    ),
    EpochNews(epoch=7, buckets=BUCKETS, signed=(b"seal",)),
    AskBucket(epoch=7, bucket=15, digest=DIGEST),
    BucketOrders(orders=DIGEST),
    AskCertificates(epoch=7, orders=DIGEST),
    Certificates(certificates=(b"certificate",)),
    AskCheckpoint(epoch=7),
    Accusation(evidence=b"evidence", bond=1_000_000, with_others=True),
    Evidence(offence=OffenceKind.UNTRUE_VERDICT, records=(b"record",), content=(b"content",)),
    STAKE_ROW.parts[0],
    STAKE_ROW.leaving[0],
    STAKE_ROW,
    AskStakes(after=KEY.peer),
    StakeRows.of(7, (STAKE_ROW,)),
    AskCredits(network=BLOCK, solution=b"solution"),
    CreditsGiven(amount=500_000, order=DIGEST),
    CheckpointReply(epoch=8, checkpoint=b"checkpoint"),
    Commitment(receipt=BLOCK, row=3, layers=12, root=bytes(range(32))),
    RowBundle(model=BLOCK, first=512, last=767, rows=255, root=bytes(range(32)), answers=(BLOCK,)),
    STATE_OPENING,
    DESCENT,
    Dispute(
        manifest=b"manifest",
        receipt=b"receipt",
        verdict=b"verdict",
        input=b"input",
        output=None,
        prover=b"commitment",
        challenger=b"commitment",
        outputs=(STATE_OPENING,),
        steps=(DESCENT,),
        sources=(STATE_OPENING,),
        prover_silent=False,
        challenger_silent=True,
        settled_at_ms=1_700_000_003_000,
    ),
    Contest(
        task=b"task",
        receipts=(b"receipt",),
        input=b"input",
        output=None,
        row=3,
        deadline_ms=30_000,
    ),
    Committed(commitment=b"commitment"),
    Descend(level=2, index=1),
    Children(left=bytes(range(32)), right=bytes(range(1, 33))),
    Reveal(layer=7),
    Revealed(state=b"state", path=bytes(64)),
    Settled(lost=True),
    SLOT,
    FeedRecord(
        name="forecast",
        keepers=(KEY.peer,),
        schedule="0 9 * * 1-5",
        zone="Europe/Berlin",
        definition=bytes(range(32)),
        begun_at_ms=1_700_000_000_000,
    ),
    FeedEntry(
        feed=BLOCK,
        number=7,
        previous=bytes(range(1, 33)),
        epoch=1,
        end="done",
        span=SLOT,
        by_hand=False,
        began_at_ms=1_700_000_000_020,
        ended_at_ms=1_700_000_000_900,
        tries=2,
        result=BLOCK,
        answer=BLOCK,
        fetches=(BLOCK,),
        why="",
    ),
    FeedFork(first=b"entry", second=b"other entry"),
    AppPolicy(network="baton", app="reader", mode=AppMode.CALL, price=1000, hold=0),
    AppKey(
        network="baton",
        app="reader",
        key=bytes(range(32)),
        gateway=KEY.peer,
        until_wall_s=1_800_000_000,
        per_minute=600,
        budget=5_000_000,
        share=700_000,
        account=KEY.peer,
    ),
    RevokedKeys(network="baton", sequence=7, told_at_ms=1_700_000_000_000, digest=bytes(range(32))),
    AppPayment(request=bytes(range(32)), amount=13_000, charged=2000, voucher=b"voucher"),
    AppDrawn(request=bytes(range(32)), amount=9000),
    AskAppKey(
        key=bytes(range(32)),
        share=700_000,
        spent=1000,
        calls=3,
        pay=(AppPayment(request=bytes(32), amount=1, charged=0, voucher=None),),
        drawn=(AppDrawn(request=bytes(32), amount=0),),
    ),
    AppKeyTold(policy=b"policy", key=b"key"),
    AskRevokedKeys(sequence=7),
    RevokedKeysTold(head=b"head", hashes=bytes(32)),
    AskFeed(feed=BLOCK, number=5),
    FeedPage(record=b"record", last=7, entries=(b"entry",)),
    LogHead(
        began_at_ms=1_700_000_000_000,
        number=7,
        size=70_000,
        root=bytes(range(32)),
        previous=bytes(range(1, 33)),
        signed_at_ms=1_700_000_004_000,
    ),
    LogFork(first=b"head", second=b"other head"),
    AskPlace(receipt=b"receipt"),
    LogPlace(head=b"head", index=69_999, path=bytes(range(64))),
    AskHeads(number=5),
    LogNews(heads=(b"head",), forks=(b"fork",)),
    LogPlaces(places=(b"", b"place")),
)


def name_of(record: object) -> str:
    """The record's type by name, for a test's id."""
    return type(record).__name__


BY_NAME = {name_of(record): record for record in SAMPLES}
MESSAGES = tuple(record for record in SAMPLES if isinstance(record, Message))
SIGNED = tuple(record for record in SAMPLES if isinstance(record, SignedRecord))


def altered(kind: str, /, **changes: Any) -> Record:
    """The sample of this kind with some fields changed: born anew, so checked anew."""
    record: Any = BY_NAME[kind]
    found: Record = dataclasses.replace(record, **changes)
    return found


def every_record_type() -> set[type[Record]]:
    """Every concrete record that `wire` defines, found by looking, not by a list."""
    modules = [
        importlib.import_module(f"wire.{module.name}")
        for module in pkgutil.iter_modules(wire.__path__)
    ]
    return {
        item
        for module in modules
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Record) and dataclasses.is_dataclass(item)
    }
