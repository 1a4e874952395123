"""Making an index with data peers that list without end, or bring what nobody asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.local.ask_commands import AskCommands
from node.local.indexing import PARTS_MAX, SOURCES_LISTED_MAX
from node.serving.data_role import DataRole
from node.serving.role import Done, Emit, LegInput
from node.serving.sources import PydocSource
from node.task.units import PASSAGES_PER_LEG
from tests.node.network import D, I, S, open_network
from wire.content import ContentId
from wire.errors import InputError, Malformed, Refused, TaskFailed
from wire.kinds import RefusalCode, Role
from wire.payload import Index, Passages, Texts
from wire.task import Stage

UNCHECKED = {"model": "hash", "needed": 0, "verifiers": 0, "deadline_s": 30}


def unheard(_: Mapping[str, Any]) -> None: ...


class Endless(DataRole):
    """Always has 256 sources more."""

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        names = Texts(texts=("name",) * 256)
        return Done(data=names.to_bytes(), units=256, profile="text")


async def test_a_list_without_end_is_ended(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await network.start(D, S)
        assert isinstance(data.leg_server.roles, dict)
        data.leg_server.roles[Role.DATA] = Endless(PydocSource(), data.dependencies.store)
        await network.settled()
        with trio.fail_after(600):
            found = await AskCommands(asker).sources({}, unheard)
        assert found["sources"] == ["name"] * SOURCES_LISTED_MAX


class Another(DataRole):
    """Brings honest passages, and says of them what `changes` says."""

    changes: Mapping[str, Any] = {}

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        done = await DataRole.do(self, stage, source, emit)
        altered = replace(Passages.from_bytes(done.data), **self.changes)
        return replace(done, data=altered.to_bytes())


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"source": "pydoc:while"}, Malformed, "other passages than those of pydoc:try"),
        ({"first": 64}, Malformed, "other passages than those of pydoc:try from number 0 on"),
        ({"total": 1}, Malformed, "other passages"),
        ({"total": 2**62}, (Malformed, InputError), r"other passages|more than"),
    ],
    ids=["source", "first", "total too small", "total without end"],
)
async def test_passages_that_were_not_asked_for_make_no_index(
    autojump_clock: MockClock, tmp_path: Path, changes: dict[str, Any], expected: Any, words: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        data = await network.start(D, S)
        assert isinstance(data.leg_server.roles, dict)
        rogue = type("Rogue", (Another,), {"changes": changes, "__slots__": ()})
        data.leg_server.roles[Role.DATA] = rogue(PydocSource(), data.dependencies.store)
        await network.settled()
        with pytest.raises(expected, match=words):
            await AskCommands(asker).embed({**UNCHECKED, "sources": ["pydoc:try"]}, unheard)


class Long:
    """One source of as many passages as asked for."""

    def __init__(self, passages: int) -> None:
        self.passages = passages

    def names(self) -> tuple[str, ...]:
        return ("long:0",)

    async def look(self) -> None:
        pass

    async def fetch(self, name: str) -> str:
        return "\n\n".join(f"{number:0>600}" for number in range(self.passages))


async def test_a_source_of_more_parts_than_an_index_holds_is_refused_at_its_first(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        honest = await network.start(D, S, source=Long(PASSAGES_PER_LEG * 2))
        await network.settled()
        found = await AskCommands(asker).embed({**UNCHECKED, "sources": ["long:0"] * 3}, unheard)
        # A name that is given three times is in the index once.
        assert (found["tasks"], found["passages"]) == (2, 64)
        data = await asker.dependencies.store.get(ContentId.parse(found["index"]))
        assert len(Index.from_bytes(data).parts) == 2
        assert isinstance(honest.leg_server.roles, dict)
        rogue = type(
            "Rogue",
            (Another,),
            {"changes": {"total": PARTS_MAX * PASSAGES_PER_LEG + 1}, "__slots__": ()},
        )
        honest.leg_server.roles[Role.DATA] = rogue(
            Long(PASSAGES_PER_LEG), honest.dependencies.store
        )
        done = asker.tasks.statistics().answered
        with pytest.raises(InputError, match="fewer of them"):
            await AskCommands(asker).embed({**UNCHECKED, "sources": ["long:0"]}, unheard)
        assert asker.tasks.statistics().answered == done + 1


class Moody(DataRole):
    """Fails as long as it is asked for the first time about a source, or for ever of one."""

    seen: set[str] = set()  # noqa: RUF012

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        name = str(stage.parameters["source"])
        if name not in self.seen or name == "pydoc:while":
            self.seen.add(name)
            raise Refused("it is not there", code=RefusalCode.NOT_FOUND)
        return await DataRole.do(self, stage, source, emit)


async def test_what_failed_is_tried_once_more_and_what_fails_again_is_named(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        data = await network.start(D, S)
        assert isinstance(data.leg_server.roles, dict)
        data.leg_server.roles[Role.DATA] = Moody(PydocSource(), data.dependencies.store)
        await network.settled()
        names, heard = ["pydoc:while", "pydoc:try", "pydoc:if"], list[Mapping[str, Any]]()
        wanted = {**UNCHECKED, "sources": names}
        found = await AskCommands(asker).embed(wanted, heard.append)
        assert (found["skipped"], found["tasks"]) == (["pydoc:while"], 2)
        told = [it for it in heard if it["event"] in ("again", "skipped")]
        assert [it["event"] for it in told] == ["again", "skipped"]
        assert told[0]["sources"] == names
        assert told[1]["source"] == "pydoc:while"
        # Where nothing can be had at all, that is an error.
        with pytest.raises(TaskFailed):
            await AskCommands(asker).embed({**UNCHECKED, "sources": names[:1]}, unheard)
