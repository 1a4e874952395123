"""How long answers are is learnt, and nobody is refused for what it merely allows."""

from node.engines.answer_lengths import REMEMBERED, UNITS_FIRST, UNITS_LEAST, AnswerLengths
from node.serving.admission import Admission
from node.serving.queue_slot import Now, QueuedJob
from wire.content import ContentId, PeerId

MODEL, OTHER = ContentId.of(b"a"), ContentId.of(b"b")
PEER = PeerId(bytes(32))


def test_what_is_expected_follows_what_was_seen() -> None:
    lengths = AnswerLengths()
    assert lengths.expected(MODEL, 8192) == UNITS_FIRST
    for _ in range(10 * REMEMBERED):
        lengths.learn(MODEL, 5)
    assert lengths.expected(MODEL, 8192) == 5
    assert lengths.expected(MODEL, 3) == 3
    assert lengths.expected(OTHER, 8192) == UNITS_FIRST
    # One that has gone on for longer is not about to end.
    assert lengths.expected(MODEL, 8192, made=400) == 500


def test_an_answer_is_not_refused_for_what_it_merely_may_have() -> None:
    now = Now(busy_s=0.0, room=8, now_at_s=0.0)
    admission = Admission(units_at_once=8)
    lengthy = QueuedJob(asker=PEER, units=256, cost_s=256.0, left_s=30.0, least=UNITS_LEAST / 256)
    assert admission.check(lengthy, PEER, now) > 30.0
