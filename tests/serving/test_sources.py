"""Sources: texts from outside, cut without loss, and no way out of the folder they lie in."""

import os
import time
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from node.ingest.local_files import FILE_BYTES_MAX, read_below
from node.ingest.passages import cut
from node.serving import sources
from node.serving.data_role import CUTS_KEPT, LONG_CHARS, DataRole
from node.serving.role import Done, LegInput
from node.serving.sources import (
    LOOK_S,
    FolderSource,
    FolderSources,
    PydocSource,
    Sources,
)
from store import open_memory_store
from wire import limits
from wire.content import ContentId
from wire.errors import Refused
from wire.kinds import Role
from wire.payload import Passages, Texts
from wire.schema import Scalar
from wire.task import Stage

_texts = st.text(
    st.one_of(st.sampled_from(" \t\n\n.a"), st.characters(codec="utf-8")), max_size=600
)


def without_blanks(text: str) -> str:
    return "".join(text.split())


@given(_texts, st.integers(1, 80))
def test_cutting_loses_nothing_but_blank_space_and_keeps_the_bound(text: str, chars: int) -> None:
    passages = cut(text, chars)
    assert without_blanks("".join(passages)) == without_blanks(text)
    assert all(0 < len(it) <= chars for it in passages)
    assert all(it == it.strip() for it in passages)


@given(st.lists(st.text("abc", min_size=1, max_size=30), max_size=20))
def test_words_that_fit_are_never_cut(words: list[str]) -> None:
    found = [word for passage in cut(" ".join(words), 70) for word in passage.split()]
    assert found == words


def test_short_paragraphs_share_a_passage_and_long_ones_are_cut_at_spaces() -> None:
    assert cut("one\n\ntwo\n \n\nthree", 12) == ["one\n\ntwo", "three"]
    assert cut("many words in one line", 10) == ["many words", "in one", "line"]
    assert cut("", 10) == cut(" \n\n\t", 10) == []


@pytest.mark.parametrize("line", ["=\n", "word ", "x"])
def test_one_paragraph_of_the_largest_file_is_cut_within_a_second(line: str) -> None:
    text = line * (FILE_BYTES_MAX // len(line))
    # Of this thread's own time: what others do on the machine is no matter of the text.
    began_s = time.thread_time()
    passages = cut(text)
    assert time.thread_time() - began_s < 1.0
    assert without_blanks("".join(passages)) == without_blanks(text)


def test_a_passage_of_the_widest_letters_still_fits_its_bound() -> None:
    passages = cut("\U0001f3c3" * 5000)
    assert max(len(it.encode()) for it in passages) <= limits.PASSAGE_BYTES_MAX


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shared = tmp_path / "shared"
    (shared / "deep" / "er").mkdir(parents=True)
    (shared / "a.txt").write_text("the first")
    (shared / "deep" / "er" / "b.md").write_text("the second")
    (tmp_path / "secret.txt").write_text("not shared")
    return shared


def scanned(root: Path) -> FolderSource:
    source = FolderSource(root)
    source.scan()
    return source


async def test_a_folder_gives_its_files_by_name(folder: Path) -> None:
    source = scanned(folder)
    assert source.names() == ("files:a.txt", "files:deep/er/b.md")
    assert await source.fetch("files:a.txt") == "the first"
    assert await source.fetch("files:deep/er/b.md") == "the second"


async def test_a_single_file_is_a_source_of_one(folder: Path) -> None:
    source = scanned(folder / "a.txt")
    assert source.names() == ("files:a.txt",)
    assert await source.fetch("files:a.txt") == "the first"


@pytest.mark.parametrize(
    "name",
    [
        "files:../secret.txt",
        "files:deep/../../secret.txt",
        "files:/etc/passwd",
        "files:a.txt/../../secret.txt",
        "files:./a.txt",
        "files:",
        "files:deep",
        "a.txt",
    ],
)
async def test_no_name_leads_out_of_the_folder(folder: Path, name: str) -> None:
    with pytest.raises(Refused, match="there is no file"):
        await scanned(folder).fetch(name)


async def test_links_and_hidden_files_are_not_shared(folder: Path) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "linked").symlink_to(folder.parent, target_is_directory=True)
    (folder / ".env").write_text("hidden")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    os.mkfifo(folder / "pipe")
    assert scanned(folder).names() == ("files:a.txt", "files:deep/er/b.md")


async def test_a_file_that_became_a_link_since_is_not_followed(folder: Path) -> None:
    source = scanned(folder)
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(folder.parent / "secret.txt")
    with pytest.raises(Refused, match="cannot be read"):
        await source.fetch("files:a.txt")


async def test_what_is_not_text_is_refused_with_the_byte_that_is_not(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"four\xff")
    with pytest.raises(Refused, match=r"files:a.txt is not UTF-8 text \(byte 4\)"):
        await scanned(folder).fetch("files:a.txt")


async def test_a_file_that_is_gone_is_refused_and_one_too_large_not_listed(folder: Path) -> None:
    source = scanned(folder)
    (folder / "a.txt").unlink()
    with pytest.raises(Refused, match="cannot be read: No such file"):
        await source.fetch("files:a.txt")
    with (folder / "huge.txt").open("wb") as huge:
        huge.truncate(FILE_BYTES_MAX + 1)
    assert "files:huge.txt" not in scanned(folder).names()


async def test_a_file_that_grew_too_large_since_is_refused(folder: Path) -> None:
    source = scanned(folder)
    with (folder / "a.txt").open("wb") as grown:
        grown.truncate(FILE_BYTES_MAX + 100)
    with pytest.raises(Refused, match="larger"):
        await source.fetch("files:a.txt")


async def test_a_file_whose_name_is_not_text_spoils_no_list(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("odd")
    (folder / ("n" * 200 + ".txt")).write_text("long")
    (folder / ("d" * 200)).mkdir()
    (folder / ("d" * 200) / ("n" * 200)).write_text("longer than a source's name may be")
    async with open_memory_store(quota_bytes=1 << 24) as store:
        role = DataRole(Sources({"files": scanned(folder)}), store)
        names = Texts.from_bytes((await done(role, "list")).data).texts
        assert names == ("files:a.txt", "files:deep/er/b.md", f"files:{'n' * 200}.txt")


async def test_a_folder_is_watched(folder: Path, autojump_clock: MockClock) -> None:
    source = scanned(folder)
    await source.look()
    (folder / "new.txt").write_text("new")
    (folder / "a.txt").rename(folder / "moved.txt")
    (folder / "deep" / "er" / "b.md").write_text("the second, again")
    # Whoever asks again and again has nothing walked in between.
    await source.look()
    assert "files:new.txt" not in source.names()
    with pytest.raises(Refused, match="there is no file"):
        await source.fetch("files:new.txt")
    await trio.sleep(LOOK_S)
    assert await source.fetch("files:new.txt") == "new"
    assert source.names() == ("files:deep/er/b.md", "files:moved.txt", "files:new.txt")
    assert await source.fetch("files:deep/er/b.md") == "the second, again"
    assert await source.fetch("files:moved.txt") == "the first"
    (folder / "new.txt").unlink()
    (folder / "late.txt").symlink_to(folder.parent / "secret.txt")
    await trio.sleep(LOOK_S)
    await source.look()
    assert source.names() == ("files:deep/er/b.md", "files:moved.txt")


async def test_a_file_that_is_being_written_is_taken_whole(
    folder: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, writes = scanned(folder), iter(range(3))

    def read(root: Path, path: Path) -> bytes:
        data = read_below(root, path)
        # Somebody goes on writing right after it was read.
        if next(writes, None) is not None:
            path.write_bytes(data + b", and more")
        return data

    monkeypatch.setattr(sources, "read_below", read)
    assert await source.fetch("files:a.txt") == "the first" + ", and more" * 3
    writes = iter(range(99))
    with pytest.raises(Refused, match="is being written all the time") as refused:
        await source.fetch("files:a.txt")
    assert refused.value.retry_after_s == LOOK_S


async def test_what_goes_away_while_a_folder_is_walked_ends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scanned(folder)
    (folder / "late").mkdir()
    (folder / "late" / "c.txt").write_text("gone soon")
    walked = os.scandir

    def scan(path: Any = ".") -> Any:
        if str(path) == str(folder / "late"):
            # Its owner removes it at the moment that it is about to be read.
            rmtree(folder / "late", ignore_errors=True)
        return walked(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(Refused, match="there is no file"):
        await source.fetch("files:late/c.txt")
    assert source.names() == ("files:a.txt", "files:deep/er/b.md")
    monkeypatch.undo()
    resolved = os.path.realpath

    def resolve(path: Any, **how: Any) -> str:
        if str(path) == str(folder / "a.txt"):
            (folder / "a.txt").unlink(missing_ok=True)
        return resolved(path, **how)

    monkeypatch.setattr(os.path, "realpath", resolve)
    scanned(folder)
    monkeypatch.undo()
    assert scanned(folder).names() == ("files:deep/er/b.md",)


async def test_links_in_a_circle_end_nothing(folder: Path) -> None:
    source = scanned(folder)
    (folder / "deep" / "er" / "b.md").unlink()
    (folder / "deep" / "er").rmdir()
    (folder / "deep" / "er").symlink_to("er")
    with pytest.raises(Refused, match="cannot be read"):
        await source.fetch("files:deep/er/b.md")
    assert scanned(folder).names() == ("files:a.txt",)


async def test_a_folder_that_became_a_link_leads_nowhere(folder: Path) -> None:
    source = scanned(folder)
    outside = folder.parent / "er"
    (folder / "deep" / "er").rename(outside)
    (folder / "deep" / "er").symlink_to(outside, target_is_directory=True)
    with pytest.raises(Refused, match="cannot be read: it lies elsewhere"):
        await source.fetch("files:deep/er/b.md")


async def test_a_new_file_is_listed_and_brought_in_by_a_data_peer(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with open_memory_store(quota_bytes=1 << 24) as store:
        role = DataRole(Sources({"files": FolderSources((FolderSource(folder),))}), store)
        await done(role, "list")
        (folder / "new.txt").write_text("new")
        await trio.sleep(LOOK_S)
        found = await done(role, "fetch", source="files:new.txt", first=0, count=1)
        assert found.blobs == (b"new",)
        assert "files:new.txt" in Texts.from_bytes((await done(role, "list")).data).texts


async def test_the_documentation_of_python_is_a_source() -> None:
    source = PydocSource()
    assert "pydoc:try" in source.names()
    assert "finally" in await source.fetch("pydoc:try")
    with pytest.raises(Refused, match="no topic"):
        await source.fetch("pydoc:nothing of the kind")


async def test_sources_are_told_apart_by_the_word_before_the_colon(folder: Path) -> None:
    both = Sources({"pydoc": PydocSource(), "files": scanned(folder)})
    assert await both.fetch("files:a.txt") == "the first"
    assert len(both.names()) == len(PydocSource().names()) + 2
    with pytest.raises(Refused, match=r"no source 'http://example.org' here \(known: pydoc, files"):
        await both.fetch("http://example.org")


async def done(role: DataRole, operation: str, **parameters: Scalar) -> Done:
    stage = Stage(role=Role.DATA, operation=operation, model=None, parameters=parameters)
    role.check(stage)

    async def nowhere(_: bytes) -> None:
        raise AssertionError("data is not streamed")

    return await role.do(stage, LegInput(id=None, data=None, holders=(), deadline_s=5), nowhere)


async def test_a_window_of_passages_is_fetched_and_each_is_named_by_content() -> None:
    async with open_memory_store(quota_bytes=1 << 24) as store:
        role = DataRole(PydocSource(), store)
        everything = await done(role, "fetch", source="pydoc:try")
        whole = Passages.from_bytes(everything.data)
        part = Passages.from_bytes(
            (await done(role, "fetch", source="pydoc:try", first=2, count=3)).data
        )
        assert part.first == 2
        assert part.passages == whole.passages[2:5]
        assert part.total == whole.total == len(whole.passages)
        text = await PydocSource().fetch("pydoc:try")
        assert [it.decode() for it in everything.blobs] == cut(text)
        assert [ContentId.of(it) for it in everything.blobs] == list(whole.passages)


class Growing:
    """A source of long texts that become others when the test says so."""

    def __init__(self) -> None:
        self.letter = "a"

    def names(self) -> tuple[str, ...]:
        return ("long:0",)

    async def look(self) -> None:
        pass

    async def fetch(self, name: str) -> str:
        return f"{name}{self.letter} " * (LONG_CHARS // len(name))


async def test_a_long_text_is_cut_once_for_all_its_legs_and_anew_when_it_has_changed() -> None:
    async with open_memory_store(quota_bytes=1 << 24) as store:
        source = Growing()
        role = DataRole(source, store)
        first = await done(role, "fetch", source="long:0")
        kept = role._cuts["long:0"]
        second = await done(role, "fetch", source="long:0", first=32)
        assert role._cuts["long:0"] is kept
        whole = cut(await source.fetch("long:0"))
        assert [it.decode() for it in (*first.blobs, *second.blobs)] == whole[:64]
        source.letter = "b"
        again = await done(role, "fetch", source="long:0")
        assert [it.decode() for it in again.blobs] == cut(await source.fetch("long:0"))[:32]
        for number in range(CUTS_KEPT + 3):
            await done(role, "fetch", source=f"long:{number}")
        assert len(role._cuts) == CUTS_KEPT


@pytest.mark.parametrize(
    ("operation", "parameters", "reason"),
    [
        ("run", {}, "only fetch and list"),
        ("fetch", {}, "names its source"),
        ("fetch", {"source": 3}, "names its source"),
        ("fetch", {"source": ""}, "names its source"),
        ("fetch", {"source": "x" * 257}, "names its source"),
        ("fetch", {"source": "pydoc:no such"}, "no topic"),
        ("fetch", {"source": "pydoc:try", "first": 10_000}, "none from number 10000 on"),
        ("fetch", {"source": "pydoc:try", "first": -1}, "whole numbers"),
        ("fetch", {"source": "pydoc:try", "count": 1.5}, "whole numbers"),
        ("fetch", {"source": "pydoc:try", "first": True}, "whole numbers"),
        ("list", {"first": 100_000}, "no source number"),
    ],
)
async def test_what_a_data_peer_cannot_bring_is_refused_in_words(
    operation: str, parameters: dict[str, Scalar], reason: str
) -> None:
    async with open_memory_store(quota_bytes=1 << 24) as store:
        with pytest.raises(Refused, match=reason):
            await done(DataRole(PydocSource(), store), operation, **parameters)
