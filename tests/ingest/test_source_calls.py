"""From a source to a function's answer: fetched, prepared, asked, and checked again offline."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from node.checking.audit import audit
from node.checking.report import AuditReport, Status
from node.commands.chained import check_chain
from node.ingest.model_inputs import FETCHED
from node.local import source_calls
from node.local.ask_commands import AskCommands
from node.local.bundles import ReceiptBundle, export_receipt, open_bundle
from node.peer import Node
from tests.checking.exact_peers import NumpyEngine, answer_of
from tests.engines.exact.samples import kept_at, made
from tests.engines.onnx_models import golden
from tests.ingest.servers import MadeUpNetwork, answering, reply
from tests.ingest.test_attested import asker_fetch, points, unheard
from tests.ingest.test_bring import InProcess, ingest_at
from tests.node.network import D, I, Network, S, open_network
from tests.workflows.test_with_peers import command
from wire.content import ContentId
from wire.errors import BatonError, InputError
from wire.signed import open_signed
from wire.task import Task
from wire.tensors import Tensor, Tensors

MODEL = made("sklearn_mlp")
ROWS = golden("sklearn_mlp")[0]["X"][:3]
LINES = [",".join(f"c{it}" for it in range(64)), *(",".join(map(str, it)) for it in ROWS.tolist())]
BODY = "\n".join(LINES).encode()
SOURCE = 'kind = "http"\nurl = "http://example.org/digits"\nformat = "csv"\n'
STACK = '[[prepare]]\nstep = "stack"\n'
NAMES = ("digits", "second", "third", "fourth")
TERMS: dict[str, Any] = {
    "model": "digits",
    "sources": ["digits"],
    "level": "signed",
    "needed": 0,
    "verifiers": 0,
    "deadline_s": 60,
}


@asynccontextmanager
async def opened(folder: Path, *sources: str) -> AsyncIterator[tuple[Network, Node, Node]]:
    """An asker, and a data peer with these sources, beside a peer that runs the function."""
    site = MadeUpNetwork(answer=answering(reply(BODY)))
    owner = folder / "owner"
    owner.mkdir()
    ingest = ingest_at(owner, site)
    for name, text in zip(NAMES, sources, strict=False):
        ingest.owned.add(name, text)
    async with open_network(folder) as network:
        asker = await network.start(S)
        data = await network.start(D, S, alter=lambda it: replace(it, ingest=ingest))
        file = kept_at(folder, MODEL, "digits")
        await network.start(I, S, engine=NumpyEngine(unit_s=0.01), models=(str(file),))
        await network.settled()
        yield network, asker, data


async def report_of(asker: Node, result: Mapping[str, Any], folder: Path) -> AuditReport:
    """What a stranger finds who has the bundle of the call, and nothing else."""
    path = folder / "call.car"
    answer = ContentId.parse(str(result["receipt"]))
    await export_receipt(asker.dependencies.store, answer, path, asker_fetch(asker))
    return await checked(open_bundle(path))


async def checked(bundle: ReceiptBundle, *hidden: ContentId) -> AuditReport:
    def have(content: ContentId) -> bytes | None:
        return None if content in hidden else bundle.have(content)

    report = audit(bundle.answer, have)
    await check_chain(report, have, lambda _: None, InProcess().extract)
    return report


async def test_a_function_is_called_on_what_was_fetched_and_a_stranger_repeats_the_way(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, SOURCE + STACK) as (_, asker, _):
        result = await AskCommands(asker).embed(TERMS, unheard)
        assert result["payload"] == answer_of(MODEL, [ROWS])
        outputs = result["result"]["outputs"]
        assert outputs.keys() == {it.name for it in MODEL.outputs}
        assert all(len(it["data"]) == np.prod(it["shape"]) for it in outputs.values())
        report = await report_of(asker, result, tmp_path)
        assert report.holds
        held = points(report, Status.HOLDS)
        for words in (
            "the numbers that the model was given are those that were fetched and prepared",
            f"the receipt of the fetch {result['fetched'][0]['receipt']} holds",
            "the preparation",
            "repeated from the body, gives the same output",
            "it was fetched before the model was asked",
        ):
            assert words in held
        # What is not at hand is said not to be, and proves nothing.
        bundle = open_bundle(tmp_path / "call.car")
        for missing in ("receipt", "record", "extracted"):
            gone = ContentId.parse(result["fetched"][0][missing])
            alone = await checked(bundle, gone)
            assert "the numbers that the model was given" in points(alone, Status.UNKNOWN)


async def test_other_numbers_than_those_that_were_fetched_are_found(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(*given: Any) -> bytes:
        (one,) = Tensors.from_bytes(real(*given)).tensors
        values = np.frombuffer(one.data, "<f4").copy()
        values[0] += 1
        changed = Tensor(name=one.name, kind=one.kind, shape=one.shape, data=values.tobytes())
        return Tensors(tensors=(changed,)).to_bytes()

    real = source_calls.call_input
    monkeypatch.setattr(source_calls, "call_input", altered)
    async with opened(tmp_path, SOURCE + STACK) as (_, asker, _):
        result = await AskCommands(asker).embed(TERMS, unheard)
        report = await report_of(asker, result, tmp_path)
    assert not report.holds
    assert "the numbers that the model was given" in points(report, Status.FAILS)


async def test_a_receipt_of_something_else_does_not_pass_for_the_fetch(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, SOURCE + STACK) as (_, asker, _):
        first = await AskCommands(asker).embed(TERMS, unheard)
        # The first call's own receipt, in place of that of a fetch; and what is no receipt.
        for named in (str(first["receipt"]), str(first["input"]), "bafkodd"):
            monkeypatch.setattr(source_calls, "fetched_parameter", lambda _, named=named: named)
            result = await AskCommands(asker).embed(TERMS, unheard)
            report = await report_of(asker, result, tmp_path)
            assert "the numbers that the model was given" not in points(report, Status.HOLDS)
            about = points(report, Status.FAILS) + points(report, Status.UNKNOWN)
            assert "fetch" in about


ODD = (
    (SOURCE, "gives a table, and digits is a function of tensors: end its"),
    (
        SOURCE + '[[prepare]]\nstep = "stack"\nkind = "int64"\n',
        'gives int64, and the model takes X, float32 anyx64.*kind = "float32"',
    ),
    (
        SOURCE + '[[prepare]]\nstep = "stack"\ncolumns = ["c1", "c2"]\n',
        "gives float32 3x2, and the model takes X, float32 anyx64",
    ),
)


async def test_what_does_not_fit_is_refused_before_the_model_is_asked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, SOURCE + STACK, *(it for it, _ in ODD)) as (_, asker, _):
        for number, (_, words) in enumerate(ODD, start=1):
            with pytest.raises(InputError, match=words):
                await AskCommands(asker).embed(TERMS | {"sources": [NAMES[number]]}, unheard)
        with pytest.raises(InputError, match="the sources give 2 tensors, and the model takes 1"):
            await AskCommands(asker).embed(TERMS | {"sources": ["digits"] * 2}, unheard)
        with pytest.raises(InputError, match="17 sources, at most 16"):
            await AskCommands(asker).embed(TERMS | {"sources": ["digits"] * 17}, unheard)
        with pytest.raises(BatonError, match="no source 'gone'"):
            await AskCommands(asker).embed(TERMS | {"sources": ["gone"]}, unheard)


async def test_a_workflow_gives_a_function_the_tensor_of_its_source(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    model = '[model]\nname = "digits"\noperation = "call"\nlevel = "signed"\n'
    text = f'every = "1h"\ntries = 1\n[source]\nname = "{{name}}"\n{model}'
    async with opened(tmp_path, SOURCE + STACK, SOURCE) as (_, asker, _):
        _, ran = await command(
            asker,
            ("add", {"name": "w", "text": text.format(name="digits")}),
            ("run", {"name": "w"}),
        )
        assert (ran["end"], ran["why"]) == ("done", "")
        assert ran["result"]["outputs"].keys() == {it.name for it in MODEL.outputs}
        report = await report_of(asker, ran, tmp_path)
        assert report.holds
        assert "the numbers that the model was given" in points(report, Status.HOLDS)
        task = report.task
        assert task is not None
        (stage,) = open_signed(task.raw, Task).record.stages
        assert stage.parameters[FETCHED] == ran["fetch_receipts"][0]
        _, ran = await command(
            asker,
            ("add", {"name": "v", "text": text.format(name="second")}),
            ("run", {"name": "v"}),
        )
        assert ran["end"] == "failed"
        assert "the source gave no tensor: end its [[prepare]]" in ran["why"]
