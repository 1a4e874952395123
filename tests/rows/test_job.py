"""A whole job: in order, bounded, resumable after any end, and never done twice."""

import errno
import json
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import trio
from pyarrow import parquet
from trio.testing import MockClock

from node.engines.hash_engine import hash_manifest
from node.rows import journal
from node.rows.job import BundleAnswer, JobEnd, JobFiles, RowJob, RowsUnanswered
from node.rows.journal import RowJournal, read_every_frame, read_frames, write_frames
from node.rows.plan import BUNDLE_ROWS, RowBatch, RowPlan, outputs_of, sources_of
from node.rows.reading import open_rows
from tests.live.command_line import ROOT, environment
from wire.content import ContentId
from wire.errors import BatonError, InputError, Malformed, StoreFull, TaskFailed
from wire.payload import Texts, Vectors
from wire.rows import RowBundle, RowDigest, root_of_rows
from wire.signed import sign
from wire.signing import SigningKey

KEY = SigningKey(Random(1).randbytes(32))
MODEL = hash_manifest().id


def plan_of(*, marks_bad: bool = False, parameters: dict[str, int] | None = None) -> RowPlan:
    return RowPlan(
        model=MODEL,
        operation="embed",
        column="text",
        parameters=parameters or {},
        marks_bad=marks_bad,
    )


def answer_of(batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
    """What an honest peer answers: the vector of a text is its length, and one."""
    texts = [text for one in inputs for text in Texts.from_bytes(one).texts]
    data = b"".join(struct.pack("<2f", len(it), 1.0) for it in texts)
    output = Vectors(dimensions=2, rows=len(texts), data=data).to_bytes()
    each = zip(
        batch.numbers,
        sources_of("embed", inputs),
        outputs_of("embed", [output], len(texts)),
        strict=True,
    )
    digests = [RowDigest.of(*it) for it in each]
    bundle = RowBundle(
        model=MODEL,
        first=batch.numbers[0],
        last=batch.numbers[-1],
        rows=len(texts),
        root=root_of_rows(digests),
        answers=(ContentId.of(b"receipt"),),
    )
    return BundleAnswer((output,), sign(bundle, KEY).raw, (b"receipt",))


class Asked:
    """Answers bundles, later ones first, and notes each row that was asked for."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.numbers: list[int] = []
        self.at_once = self.at_once_max = 0
        self.fail_at = fail_at

    async def __call__(self, batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await trio.sleep(0.5 - batch.index % 4 / 10)
        self.at_once -= 1
        if self.fail_at is not None and batch.first >= self.fail_at:
            raise TaskFailed("nobody could")
        self.numbers += batch.numbers
        return answer_of(batch, inputs)


def table(folder: Path, count: int, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text("text\n" + "".join(f"row {it}\n" for it in range(count)))
    return path


async def run_job(
    path: Path, out: Path, ask: object, *, plan: RowPlan | None = None, resume: bool = False
) -> JobEnd:
    files = JobFiles(path, out)
    is_new = files.check(resume=resume, force=False)
    source = open_rows(path, "text")
    shares: list[float] = []
    written: list[bool] = []
    try:
        job = RowJob(
            plan or plan_of(),
            files,
            source,
            ask,  # type: ignore[arg-type]
            lambda _, share, __: shares.append(share),
            lambda: written.append(out.exists()),
        )
        end = await job.run(is_new=is_new)
    finally:
        source.close()
    assert written == [False]
    assert shares == sorted(shares)
    assert not shares or shares[-1] == 1.0
    return end


async def test_rows_come_out_in_order_whatever_comes_back_first(
    autojump_clock: object, tmp_path: Path
) -> None:
    path, ask = table(tmp_path, 3000), Asked()
    end = await run_job(path, tmp_path / "out.jsonl", ask)
    assert end == JobEnd(rows=3000, rows_before=0, bad_rows=0, bundles=12)
    lines = [json.loads(it) for it in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [it["row"] for it in lines] == list(range(3000))
    assert lines[17]["vector"] == [6.0, 1.0]
    assert ask.numbers != sorted(ask.numbers), "the bundles came back as they were asked for"
    assert 1 < ask.at_once_max <= 9
    assert not (tmp_path / "out.jsonl.job").exists()
    kept = list(read_frames(tmp_path / "out.jsonl.receipts"))
    assert kept[0]["model"] == str(MODEL)
    assert [it["first"] for it in kept[1:]] == list(range(0, 3000, 256))
    assert "outputs" not in kept[1]


async def test_every_format_has_the_same_answers(autojump_clock: object, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "abc"}\n{"text": null}\n{"text": "de"}\n')
    for name in ("o.csv", "o.tsv", "o.jsonl", "o.parquet"):
        end = await run_job(path, tmp_path / name, Asked(), plan=plan_of(marks_bad=True))
        assert (end.rows, end.bad_rows, end.bundles) == (3, 1, 1)
    csv = (tmp_path / "o.csv").read_text()
    why = "the column 'text' has no value"
    assert csv == f'row,vector,error\n0,"[3.0, 1.0]",\n1,,{why}\n2,"[2.0, 1.0]",\n'
    assert f"1\t\t{why}\n" in (tmp_path / "o.tsv").read_text()
    last = (tmp_path / "o.jsonl").read_text().splitlines()
    assert json.loads(last[1]) == {"row": 1, "vector": None, "error": why}
    found = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert found == [
        {"row": 0, "vector": [3.0, 1.0], "error": None},
        {"row": 1, "vector": None, "error": why},
        {"row": 2, "vector": [2.0, 1.0], "error": None},
    ]


async def test_what_failed_goes_on_and_nothing_is_asked_twice(
    autojump_clock: object, tmp_path: Path
) -> None:
    path, out = table(tmp_path, 2000), tmp_path / "out.csv"
    first = Asked(fail_at=1024)
    with pytest.raises(TaskFailed, match="rows 1024 to 1279: nobody could"):
        await run_job(path, out, first)
    assert not out.exists()
    with pytest.raises(InputError, match="begun before"):
        await run_job(path, out, Asked())
    second = Asked()
    end = await run_job(path, out, second, resume=True)
    assert (end.rows, end.rows_before) == (2000, 1024)
    assert sorted(first.numbers + second.numbers) == list(range(2000))
    with pytest.raises(InputError, match="there already"):
        await run_job(path, out, Asked())
    whole = out.read_bytes()
    await run_job(path, tmp_path / "other.csv", Asked())
    assert (tmp_path / "other.csv").read_bytes() == whole


async def test_a_job_that_met_a_bad_row_goes_on_with_such_rows_marked(
    autojump_clock: object, tmp_path: Path
) -> None:
    path, out, asked = tmp_path / "a.jsonl", tmp_path / "out.csv", Asked()
    good = "".join(f'{{"text": "row {it}"}}\n' for it in range(300))
    path.write_text(good + '{"text": null}\n{"text": "de"}\n')
    with pytest.raises(InputError, match=r"row 300: .* has no value") as refused:
        await run_job(path, out, asked)
    assert refused.value.todo is not None
    assert "--bad-rows mark; then go on: --resume" in refused.value.todo
    end = await run_job(path, out, asked, plan=plan_of(marks_bad=True), resume=True)
    assert (end.rows, end.bad_rows) == (302, 1)
    assert sorted(asked.numbers) == [*range(300), 301]
    assert out.read_text().splitlines()[301] == "300,,the column 'text' has no value"


async def test_a_job_that_an_earlier_version_began_goes_on(
    autojump_clock: object, tmp_path: Path
) -> None:
    path, out = table(tmp_path, 600), tmp_path / "out.jsonl"
    with pytest.raises(TaskFailed):
        await run_job(path, out, Asked(fail_at=512))
    journal_path = tmp_path / "out.jsonl.job"
    head, *frames = read_frames(journal_path)
    assert len(frames) == 2
    for frame in frames:
        # It kept each row's answer by itself.
        (output,) = frame.pop("answered")
        frame["outputs"] = outputs_of("embed", [output], 256)
    with journal_path.open("wb") as file:
        write_frames(file, [head, *frames])
    end = await run_job(path, out, Asked(), resume=True)
    assert (end.rows, end.rows_before) == (600, 512)
    lines = [json.loads(it) for it in out.read_text().splitlines()]
    assert [it["vector"][0] for it in lines] == [len(f"row {it}") for it in range(600)]
    kept = list(read_frames(tmp_path / "out.jsonl.receipts"))
    assert all(not {"answered", "outputs"} & it.keys() for it in kept)


async def test_a_table_or_a_question_that_changed_is_no_job_to_go_on_with(
    autojump_clock: object, tmp_path: Path
) -> None:
    path, out = table(tmp_path, 600), tmp_path / "out.csv"
    with pytest.raises(TaskFailed):
        await run_job(path, out, Asked(fail_at=512))
    with pytest.raises(InputError, match="begun with another parameters"):
        await run_job(path, out, Asked(), plan=plan_of(parameters={"a": 1}), resume=True)
    path.write_text(path.read_text().replace("row 300\n", "row x\n"))
    with pytest.raises(InputError, match=r"rows 256 to 511 of .* are not what they were"):
        await run_job(path, out, Asked(), resume=True)
    path.write_text("text\n")
    with pytest.raises(InputError, match="rows 0 to 255"):
        await run_job(path, out, Asked(), resume=True)


async def test_a_bad_row_late_in_the_table_loses_nothing_before_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    path, out, ask = tmp_path / "a.jsonl", tmp_path / "out.csv", Asked()
    good = '{"text": "x"}\n'
    path.write_text(good * 700 + '{"text": 1}\n' + good)
    with pytest.raises(InputError, match="row 700: the column 'text' has a number"):
        await run_job(path, out, ask)
    assert sorted(ask.numbers) == list(range(512))
    path.write_text(good * 702)
    end = await run_job(path, out, ask, resume=True)
    assert (end.rows, end.rows_before) == (702, 512)


async def test_a_disk_that_fills_names_the_row_and_keeps_what_was_done(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = table(tmp_path, 2000), tmp_path / "out.csv"
    add, ask, added = RowJournal.add, Asked(), list[int]()

    def until_full(self: RowJournal, bundle: dict[str, int]) -> None:
        if bundle["first"] >= 768:
            assert self._file is not None
            # As much as there is room for goes to the disk before the error comes.
            self._file.write(b"half a frame")
            full = OSError(errno.ENOSPC, "No space left on device")
            raise journal._ours(self.path, full) from full
        added.append(bundle["first"])
        add(self, bundle)

    monkeypatch.setattr(RowJournal, "add", until_full)
    with pytest.raises(StoreFull, match=r"no room left to write .*at row 768; 768 rows are kept"):
        await run_job(path, out, ask)
    monkeypatch.setattr(RowJournal, "add", add)
    end = await run_job(path, out, Asked(), resume=True)
    assert (end.rows, end.rows_before) == (2000, 768)


def test_a_write_that_fails_half_way_leaves_the_journal_whole(tmp_path: Path) -> None:
    class Full:
        """A file whose disk has room for some bytes more."""

        def __init__(self, file: object, room: int) -> None:
            self.file, self.room = file, room

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            some, self.room = data[: self.room], 0
            return self.file.write(some)  # type: ignore[attr-defined, no-any-return]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    one = RowJournal(tmp_path / "a.job")
    one.open({"model": "m"}, is_new=True)
    one.add({"first": 0})
    whole = one.path.read_bytes()
    one._file = Full(one._file, 5)  # type: ignore[assignment]
    with pytest.raises(StoreFull):
        one.add({"first": 1})
    assert one.path.read_bytes() == whole
    one.close()


def test_a_torn_end_is_cut_off_wherever_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "a.job"
    one = RowJournal(path)
    one.open({"model": "m"}, is_new=True)
    one.add({"first": 0})
    before = len(path.read_bytes())
    one.add({"first": 1})
    one.close()
    whole = path.read_bytes()
    for size in range(before, len(whole)):
        path.write_bytes(whole[:size])
        again = RowJournal(path)
        again.open({"model": "m"}, is_new=False)
        assert list(again.done()) == [{"first": 0}]
        again.add({"first": 1})
        again.close()
        assert path.read_bytes() == whole
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="not the journal"):
        RowJournal(path).open({"model": "m"}, is_new=False)


def test_two_commands_do_not_write_one_output(tmp_path: Path) -> None:
    one, other = RowJournal(tmp_path / "a.job"), RowJournal(tmp_path / "a.job")
    one.open({}, is_new=True)
    with pytest.raises(InputError, match="another command"):
        other.open({}, is_new=False)
    one.close()


async def test_a_peer_that_signs_other_rows_is_not_believed(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def lying(batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
        honest = answer_of(batch, inputs)
        other = Vectors(dimensions=1, rows=len(batch.numbers), data=b"\0" * 4 * len(batch.numbers))
        return BundleAnswer((other.to_bytes(),), honest.signed, honest.answers)

    async def short(batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
        one = Vectors(dimensions=1, rows=1, data=b"\0" * 4)
        return BundleAnswer((one.to_bytes(),), b"", ())

    for ask, said in ((lying, "not these rows"), (short, "answered 1 rows where 5")):
        with pytest.raises(Malformed, match=said):
            await run_job(table(tmp_path, 5), tmp_path / f"{said[:3]}.csv", ask)


def test_outputs_that_would_lose_something_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, 1)
    for out, said in (
        (path, "is the table itself"),
        (tmp_path / "none" / "o.csv", "there is no folder"),
        (tmp_path / "o.txt", "no format"),
    ):
        with pytest.raises(InputError, match=said):
            JobFiles(path, out).check(resume=False, force=False)
    with pytest.raises(InputError, match="is the table itself"):
        JobFiles(path, path).check(resume=False, force=True)
    assert path.exists()
    (tmp_path / "o.csv").write_text("old")
    assert JobFiles(path, tmp_path / "o.csv").check(resume=False, force=True)
    assert not (tmp_path / "o.csv").exists()


_KILLED = """
import os, signal, sys, trio
from pathlib import Path
from tests.rows.test_job import answer_of, run_job

async def ask(batch, inputs):
    with Path(sys.argv[3]).open("a") as told:
        told.write("".join(f"{it}\\n" for it in batch.numbers))
    if batch.first >= 1536:
        # What is done by now is in the journal.
        while not Path(sys.argv[2] + ".job").stat().st_size > 30_000:
            await trio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return answer_of(batch, inputs)

trio.run(run_job, Path(sys.argv[1]), Path(sys.argv[2]), ask)
"""


def test_after_a_sigkill_only_what_was_in_flight_is_asked_again(tmp_path: Path) -> None:
    path, out, told = table(tmp_path, 3000), tmp_path / "out.csv", tmp_path / "told"
    ran = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), str(out), str(told)],
        env=environment({}),
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()
    assert not out.exists()
    ask = Asked()

    async def go_on() -> JobEnd:
        return await run_job(path, out, ask, resume=True)

    end = trio.run(go_on, clock=MockClock(autojump_threshold=0))
    assert 0 < end.rows_before <= 1536
    assert ask.numbers != []
    assert sorted(ask.numbers) == list(range(end.rows_before, 3000))
    assert len(out.read_text().splitlines()) == 3001


def test_errors_of_the_disk_are_ours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        RowJournal(tmp_path / "no" / "a.job").open({}, is_new=True)
    with pytest.raises(BatonError):
        list(read_frames(tmp_path / "none"))


def test_receipts_that_are_damaged_or_cut_are_not_read_as_fewer(tmp_path: Path) -> None:
    path = tmp_path / "out.receipts"
    with path.open("wb") as file:
        write_frames(file, [{"model": "m"}, {"first": 0}, {"first": 1}])
    raw = path.read_bytes()
    assert len(list(read_every_frame(path))) == 3
    for damaged in (raw[:-1], raw[:-1] + b"x", raw + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged: what comes after"):
            list(read_every_frame(path))
    path.write_bytes(b"another file")
    assert not list(read_every_frame(path))


async def test_rows_that_a_model_gives_no_answers_for_are_named_and_the_rest_goes_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Odd(Asked):
        async def __call__(self, batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
            if batch.numbers[0] == BUNDLE_ROWS["embed"]:
                raise RowsUnanswered("the model gives 3 x 2 for 256 rows", todo="--one-by-one")
            return await super().__call__(batch, inputs)

    path, out, size = table(tmp_path, 700), tmp_path / "a.jsonl", BUNDLE_ROWS["embed"]
    words = f"rows {size} to {2 * size - 1}: the model gives 3 x 2.*--bad-rows mark --resume"
    with pytest.raises(InputError) as refused:
        await run_job(path, out, Odd())
    assert re.search(words, str(refused.value))
    asked = Odd()
    end = await run_job(path, tmp_path / "b.jsonl", asked, plan=plan_of(marks_bad=True))
    assert (end.rows, end.bad_rows) == (700, size)
    rows = [json.loads(it) for it in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [it["row"] for it in rows if it.get("error")] == list(range(size, 2 * size))
    assert {it.get("error") for it in rows} == {None, "the model gives 3 x 2 for 256 rows"}
    assert all((it["vector"] is None) is bool(it.get("error")) for it in rows)
