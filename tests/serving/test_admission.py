"""Whose leg is next: nobody waits behind another's flood; nothing is taken that would be late."""

import math
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from node.serving.admission import (
    ASKERS_MAX,
    QUOTED_FOR_S,
    QUOTED_MAX,
    QUOTED_S_MAX,
    RETRY_AFTER_S_MAX,
    WAITING_PER_ASKER_MAX,
    Admission,
    _with_overhead,
)
from node.serving.queue_slot import Now, QueuedJob, QueueSlot, SlotStage
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import Refused


def peer(name: str) -> PeerId:
    return key_of(name).peer


def wanted(name: str, cost_s: float = 1.0, left_s: float = 1000.0) -> QueuedJob:
    return QueuedJob(asker=peer(name), units=1, cost_s=cost_s, left_s=left_s)


def now(now_at_s: float = 0.0, busy_s: float = 0.0, room: int = 64) -> Now:
    return Now(busy_s, room, now_at_s)


def enqueue(
    admission: Admission, name: str, at: Now | None = None, /, **terms: float
) -> tuple[QueueSlot, list[QueueSlot]]:
    place, given_up = admission.enqueue(wanted(name, **terms), peer(name), at or now())
    place.stage = SlotStage.READY
    return place, given_up


def order(admission: Admission, names: str) -> str:
    """Who is worked for, one after the other."""
    of = {peer(name): name for name in names}
    done = ""
    while True:
        begun, _ = admission.next(now())
        if not begun:
            return done
        for place in begun:
            done += of[place.asker]
            admission.dequeue(place)


def test_askers_take_turns_however_many_jobs_each_has() -> None:
    admission = Admission(1)
    for name in "aaaaaabbc":
        enqueue(admission, name)
    assert order(admission, "abc") == "abcabaaaa"


def test_long_jobs_have_fewer_turns_than_short_ones() -> None:
    admission = Admission(1)
    for _ in range(3):
        enqueue(admission, "a", cost_s=4.0)
    for _ in range(9):
        enqueue(admission, "b", cost_s=1.0)
    assert order(admission, "ab")[:6] == "abbbba"


def test_who_was_idle_has_saved_up_nothing_and_waits_for_nobody_s_backlog() -> None:
    admission = Admission(1)
    for _ in range(20):
        enqueue(admission, "a")
    for _ in range(10):
        (place,), _ = admission.next(now())
        admission.dequeue(place)
    enqueue(admission, "b")
    enqueue(admission, "b")
    assert order(admission, "ab")[:4] in ("baba", "abab")


def test_as_many_are_worked_on_as_the_engine_has_use_for() -> None:
    admission = Admission(64)
    places = [
        admission.enqueue(
            QueuedJob(asker=peer("a"), units=30, cost_s=1.0, left_s=100.0), peer("a"), now()
        )[0]
        for _ in range(5)
    ]
    for place in places:
        place.stage = SlotStage.READY
    assert admission.next(now())[0] == places[:3]
    assert admission.next(now())[0] == []
    admission.dequeue(places[0])
    assert admission.next(now())[0] == [places[3]]


def test_one_whose_input_is_on_its_way_holds_up_nobody() -> None:
    admission = Admission(1)
    slow, _ = enqueue(admission, "a")
    slow.stage = SlotStage.AWAITING_INPUT
    quick, _ = enqueue(admission, "b")
    assert admission.next(now())[0] == [quick]
    admission.dequeue(quick)
    slow.stage = SlotStage.READY
    assert admission.next(now())[0] == [slow]


def test_what_cannot_be_done_in_time_is_refused_for_good_or_until_there_is_less() -> None:
    admission = Admission(1)
    with pytest.raises(Refused, match="deadline") as hopeless:
        enqueue(admission, "a", cost_s=10.0, left_s=9.0)
    assert hopeless.value.retry_after_s is None
    with pytest.raises(Refused, match="deadline") as queued:
        enqueue(admission, "a", now(busy_s=20.0), cost_s=1.0, left_s=15.0)
    assert queued.value.retry_after_s == 10.0
    with pytest.raises(Refused) as long:
        enqueue(admission, "a", now(busy_s=2000.0), cost_s=1.0, left_s=15.0)
    assert long.value.retry_after_s == RETRY_AFTER_S_MAX
    assert not admission.waiting


def test_an_engine_that_does_many_at_once_does_one_no_faster() -> None:
    admission = Admission(100)
    job = QueuedJob(asker=peer("a"), units=80, cost_s=1.0, left_s=100.0, alone_s=8.0)
    assert admission.quote(job, peer("a"), now()) >= 8.0
    assert admission.quote(job, peer("b"), now(busy_s=20.0)) == pytest.approx(
        admission.quote(replace(job, alone_s=0.0), peer("c"), now(busy_s=20.0)), rel=0.2
    )
    with pytest.raises(Refused) as refused:
        admission.enqueue(replace(job, left_s=5.0), peer("a"), now())
    # More time changes nothing.
    assert refused.value.retry_after_s is None


def test_a_deadline_is_kept_for_those_who_were_taken_before() -> None:
    admission = Admission(1)
    first, _ = enqueue(admission, "a", left_s=3.0)
    second, _ = enqueue(admission, "a", left_s=3.0)
    # A newcomer's turn comes before another's second job, which would be late then.
    newcomer, given_up = enqueue(admission, "b", left_s=3.0)
    assert given_up == []
    another, given_up = enqueue(admission, "c", left_s=30.0)
    assert given_up == [second]
    assert second.refusal is not None
    assert second.refusal.retry_after_s is not None
    assert admission.waiting == [first, newcomer, another]


def test_where_there_is_no_room_who_has_most_makes_room_for_who_has_fewer() -> None:
    admission = Admission(1)
    for _ in range(4):
        enqueue(admission, "a", now(room=4))
    last = admission.waiting[-1]
    with pytest.raises(Refused, match="every slot is taken") as refused:
        enqueue(admission, "a", now(room=4))
    assert refused.value.retry_after_s is not None
    assert enqueue(admission, "b", now(room=4))[1] == [last]
    assert enqueue(admission, "b", now(room=4))[1]
    # Two each: that is fair.
    for name in "ab":
        with pytest.raises(Refused):
            enqueue(admission, name, now(room=4))
    assert len(admission.waiting) == 4


def test_one_asker_has_so_many_waiting_and_no_more() -> None:
    admission = Admission(1)
    for _ in range(WAITING_PER_ASKER_MAX):
        enqueue(admission, "a", now(room=10_000))
    with pytest.raises(Refused, match="of this asker") as refused:
        enqueue(admission, "a", now(room=10_000))
    assert refused.value.retry_after_s is not None
    enqueue(admission, "b", now(room=10_000))


def test_one_whose_deadline_comes_too_near_is_told_so_instead_of_worked_for() -> None:
    admission = Admission(1)
    late, _ = enqueue(admission, "a", left_s=5.0)
    good, _ = enqueue(admission, "b", left_s=50.0)
    begun, given_up = admission.next(now(4.5))
    assert (begun, given_up) == ([good], [late])
    assert late.refusal is not None


def test_those_who_ask_at_the_same_time_do_not_all_hear_that_nobody_is_there() -> None:
    admission = Admission(1)

    def quote(name: str, at_s: float) -> float:
        return admission.quote(wanted(name), peer(name), now(at_s))

    told = [quote(str(number), 0.0) for number in range(5)]
    assert told == sorted(told)
    assert told[1] - told[0] == pytest.approx(1.0)
    # However many only ask, they keep nobody else away for long.
    assert told[4] - told[0] == pytest.approx(QUOTED_S_MAX)
    # Asking twice makes nobody look busier, and a quote is for a moment only.
    assert quote("0", 0.1) == quote("0", 0.2)
    assert quote("9", QUOTED_FOR_S + 0.3) == told[0]
    # It binds nobody: who comes is taken by what is there.
    place, _ = admission.enqueue(wanted("z", left_s=1.2), peer("z"), now(QUOTED_FOR_S + 0.3))
    assert place.expected_s == told[0]


def test_no_flood_of_askers_fills_the_memory() -> None:
    admission = Admission(1)
    busy, _ = enqueue(admission, "busy", cost_s=1.0)
    admission.next(now())
    for number in range(ASKERS_MAX + 50):
        place, _ = enqueue(admission, f"asker {number}", cost_s=50.0, left_s=1e9)
        admission.dequeue(place)
        admission.quote(wanted(f"asker {number}"), place.asker, now())
    assert len(admission._finish) <= ASKERS_MAX
    assert len(admission._quoted) <= QUOTED_MAX
    admission.dequeue(busy)
    assert not admission._finish


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_bounds_hold_and_whoever_was_taken_hears_of_it(seed: int) -> None:
    random = Random(seed)
    admission, room, at_s, ends_s = Admission(1), 8, 0.0, 0.0
    places: list[QueueSlot] = []
    ended: set[QueueSlot] = set()
    waits_s: list[float] = []
    for _ in range(400):
        at_s += random.random()
        if admission.running and ends_s <= at_s:
            (done,) = admission.running
            assert ends_s <= done.until_at_s
            admission.dequeue(done)
            ended.add(done)
        at = Now(max(0.0, ends_s - at_s) if admission.running else 0.0, room, at_s)
        try:
            terms = {"cost_s": random.choice((0.2, 1.0, 3.0)), "left_s": random.choice((4.0, 20.0))}
            place, given_up = enqueue(admission, random.choice("aaaaaaabc"), at, **terms)
            places.append(place)
            ended.update(given_up)
        except Refused as error:
            waits_s.append(error.retry_after_s or RETRY_AFTER_S_MAX)
        if random.random() < 0.1 and admission.waiting:
            place = random.choice(admission.waiting)
            admission.dequeue(place)
            ended.add(place)
        begun, given_up = admission.next(at)
        ended.update(given_up)
        if begun:
            ends_s = at_s + at.busy_s + begun[0].cost_s
        assert len(admission.waiting) <= room
        assert len(admission.running) <= 1
    assert all(0 < it <= RETRY_AFTER_S_MAX for it in waits_s)
    assert set(places) == ended | set(admission.waiting) | admission.running


@pytest.mark.parametrize("seed", range(5))
def test_what_is_counted_as_jobs_come_and_go_is_what_is_there(seed: int) -> None:
    random = Random(seed)
    admission = Admission(2)
    for step in range(600):
        at = now(step / 10, room=40)
        match random.randrange(5):
            case 0 | 1 | 2:
                job = wanted(random.choice("aaabcdefgh"), random.choice((0.1, 0.7, 2.0)), 900.0)
                try:
                    place, _ = admission.enqueue(job, peer(random.choice("xyzv")), at)
                except Refused:
                    continue
                if random.random() < 0.8:
                    admission.reprice(place, 1, random.choice((0.1, 0.3, 1.1)))
                    place.stage = SlotStage.READY
            case 3 if admission.waiting:
                admission.dequeue(random.choice(admission.waiting))
            case _ if admission.running:
                admission.dequeue(random.choice(sorted(admission.running, key=lambda it: it.order)))
        begun, _ = admission.next(at)
        waiting = admission.waiting
        assert begun == sorted(begun, key=lambda it: it.order)
        assert admission._turns == sorted(waiting, key=lambda it: it.order)
        assert admission.queue_s == pytest.approx(sum(it.cost_s for it in waiting), abs=1e-9)
        assert admission._askers == Counter(it.asker for it in waiting)
        assert admission._holders == Counter(it.by for it in waiting)
        assert admission._finish_least <= min(admission._finish.values(), default=math.inf)
        job = wanted(random.choice("abcdefgh"), 0.5)
        ahead_s = sum(it.cost_s for it in waiting if it.start <= admission._start(job.asker))
        assert admission.expected_s(job, at) == pytest.approx(_with_overhead(ahead_s + 0.5))
