"""A function called on what data peers bring in: fetched, prepared, given to the model, checked.

The receipt of the call names those of the fetches, so that the whole way is checked offline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from node.asking.affording import quote_of
from node.asking.run import TaskRequest
from node.ingest.model_inputs import FETCHED, fetched_parameter, inputs_from, model_inputs
from node.local.agreeing import FetchedSource, fetch_stage
from node.local.control import Emit
from node.local.fetch_commands import FetchCommands
from node.peer import Node
from node.task.price_bound import PriceBound, part_of_fetches
from p2p.gather import gather
from wire.amount import show_credits
from wire.errors import InputError, TaskFailed
from wire.kinds import Level, Role
from wire.model import Manifest
from wire.operations import CALL
from wire.plural import plural
from wire.task import Stage
from wire.tensors import Tensor, Tensors

SOURCES_MAX = 16
_SEE = "see what comes out: python -m node sources test NAME"


@dataclass(frozen=True, slots=True)
class SourceInput:
    """What was fetched, as the input of a call, and the stage that asks for it.

    `charged` is what the fetches cost, in millionths.
    """

    stage: Stage
    data: bytes
    fetched: tuple[FetchedSource, ...]
    charged: int


async def bring_inputs(
    node: Node, manifest: Manifest, names: Sequence[str], terms: TaskRequest, emit: Emit
) -> SourceInput:
    """Have each source fetched, and fit what comes to the model; InputError if it does not fit."""
    if len(names) > SOURCES_MAX:
        raise InputError(f"{plural(len(names), 'source')}, at most {SOURCES_MAX} are taken")
    part = part_of_fetches(terms.price_max, len(names), then=True)
    fetching = FetchCommands(node, PriceBound(terms.price_max))
    found: dict[int, FetchedSource] = {}

    async def one(place: int) -> None:
        request = replace(
            terms,
            stages=(fetch_stage(names[place]),),
            level=Level.SIGNED,
            needed=0,
            verifiers=0,
            price_max=part,
        )
        await _check_part(node, names[place], request, len(names))
        found[place] = await fetching.fetch_one(request, None, emit)

    await gather(one, range(len(names)), at_once=4)
    fetched = tuple(found[place] for place in range(len(names)))
    for name, source in zip(names, fetched, strict=True):
        if (gives := source.record.extraction.gives) != "tensor":
            raise InputError(
                f"the source {name[:80]} gives {'bytes' if gives == 'binary' else f'a {gives}'},"
                f" and {manifest.name} is a function of tensors",
                todo="end its [[prepare]] with stack, window, tokenise or image; " + _SEE,
            )
    data = await trio.to_thread.run_sync(call_input, manifest, [it.output for it in fetched])
    answers = [it.answered.answer.id for it in fetched]
    stage = Stage(
        role=Role.INFER,
        operation=CALL,
        model=manifest.id,
        parameters={FETCHED: fetched_parameter(answers)},
    )
    return SourceInput(stage, data, fetched, fetching.bound.charged)


async def _check_part(node: Node, name: str, request: TaskRequest, fetches: int) -> None:
    """InputError if a fetch costs more than its part of what the whole call may cost."""
    quote = await quote_of(node.leg_server.dispatcher.directory, request)
    if quote is None or not quote.is_known or quote.least <= request.price_max:
        return
    allowed = show_credits(request.price_max) if request.price_max else "nothing"
    raise InputError(
        f"the source {name[:80]} costs up to {show_credits(quote.least)} credits at the cheapest"
        f" data peer, and {allowed} may be paid for it: fetches and the call share alike",
        todo=f"allow more: --pay-max {show_credits((fetches + 1) * quote.least)}",
    )


def call_input(manifest: Manifest, outputs: Sequence[bytes]) -> bytes:
    """The input of a call, of the tensors that were fetched; InputError, WireError."""
    wanted = model_inputs(manifest.parameters)
    if not wanted:
        raise InputError(
            f"the manifest of {manifest.name} does not tell what it takes",
            todo="give it a table: --rows, --input NAME=COLUMN; or POST /v1/infer at a gateway",
        )
    tensors: list[Tensor] = []
    for output in outputs:
        tensors += Tensors.from_bytes(output).tensors
    return inputs_from(tensors, wanted)


def known_manifest(manifest: Manifest | None, typed: str) -> Manifest:
    """The manifest; TaskFailed if nobody has said yet what the model is."""
    if manifest is None:
        raise TaskFailed(
            f"nobody who runs {typed[:80]} is known yet, so it is not known what it takes",
            todo="try again in a moment, or see who is there: python -m node peers",
        )
    return manifest
