"""Serving a range of a model's layers: rows of another peer's pass go through the engine, in order.

Who opens has a session with pages of its own. What it sends wrong ends its session and nothing
else; a peer that pauses or leaves says so at the next pass, and the asker goes elsewhere.
"""

from collections import Counter
from dataclasses import dataclass, field

import trio

from node.engines.interface import Engine, Job
from node.engines.other_layers import BEGIN, END, SESSION
from node.serving.leg_server import LegServer
from p2p import timeouts
from p2p.typed_call import TypedCall, refusal_of
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.errors import EngineError, Refused, RemoteProtocolError
from wire.kinds import RefusalCode, Role
from wire.message import Message
from wire.operations import STAGE
from wire.stage import StageClose, StageOpen, StageOpened, StagePass, StagePassed

# Sessions at once, and of one asker: one that stands, and one that it begins after a failure.
SESSIONS_MAX = 16
SESSIONS_PER_ASKER = 2
PASS_S = 60.0
# A session without a pass for so long is ended. Askers end theirs sooner.
IDLE_S = 300.0


@dataclass(slots=True)
class StageServer:
    """`on_open` answers a StageOpen."""

    engine: Engine
    legs: LegServer
    passes: int = 0
    rows: int = 0
    _numbers: int = 0
    _sessions: Counter[PeerId] = field(default_factory=Counter)

    @property
    def sessions(self) -> int:
        """Sessions that stand now."""
        return self._sessions.total()

    async def on_open(self, call: TypedCall, message: Message) -> None:
        """Serve one session until its asker closes it."""
        assert isinstance(message, StageOpen)
        self._numbers += 1
        number = self._numbers
        try:
            self._check_able(message)
            self._check_room(call.peer)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        with counted(self._sessions, call.peer):
            try:
                await self._serve(call, message, number)
            except (EngineError, Refused) as error:
                await call.send(refusal_of(error))
            finally:
                with trio.CancelScope(shield=True), timeouts.move_on_after(PASS_S):
                    await self._end(message.model, number)

    async def _serve(self, call: TypedCall, opening: StageOpen, session: int) -> None:
        model = opening.model
        granted = await self._do(model, {SESSION: session, BEGIN: opening.pages})
        await call.send(StageOpened(pages=int.from_bytes(granted, "little")))
        number = 0
        while True:
            with trio.move_on_after(IDLE_S) as idle:
                message = await call.receive()
            if idle.cancelled_caught:
                raise Refused(f"no pass for {IDLE_S:.0f} s", code=RefusalCode.LATE)
            if isinstance(message, StageClose):
                return
            assert isinstance(message, StagePass), "the table of conversations lets nothing else"
            if message.number != number:
                raise RemoteProtocolError(f"pass {message.number} where {number} comes next")
            self._check_able(opening)
            data = await self._do(model, {SESSION: session}, message.rows.to_bytes())
            await call.send(StagePassed(number=number, data=data))
            self.passes += 1
            self.rows += len(message.rows.owners)
            number += 1

    def _check_able(self, opening: StageOpen) -> None:
        """Refused unless such a session may begin, or go on, now."""
        if not self.legs.taking:
            raise Refused("this peer is leaving", code=RefusalCode.LEAVING)
        if self.legs.paused:
            raise Refused(f"this peer is paused: {self.legs.paused}", code=RefusalCode.PAUSED)
        willing = Role.INFER in self.legs.roles
        ready = self.engine.ready(opening.model) if willing else None
        layers = None if ready is None else ready.middle
        if layers is None:
            raise Refused(
                f"no layers of the model {opening.model.short} are run here for others",
                code=RefusalCode.NO_SUCH_MODEL,
            )
        if (opening.first, opening.last) != (layers.first, layers.last):
            raise Refused(
                f"{layers} are run here, not {opening.first}-{opening.last}",
                code=RefusalCode.UNSUPPORTED,
            )

    def _check_room(self, asker: PeerId) -> None:
        if self._sessions[asker] >= SESSIONS_PER_ASKER or self.sessions >= SESSIONS_MAX:
            raise Refused("too many others have these layers run here", retry_after_s=1.0)

    async def _do(self, model: ContentId, parameters: dict[str, int], data: bytes = b"") -> bytes:
        job = Job(
            model=model, operation=STAGE, input=data, parameters=parameters, deadline_s=PASS_S
        )
        return (await self.engine.infer(job)).data

    async def _end(self, model: ContentId, session: int) -> None:
        try:
            await self._do(model, {SESSION: session, END: 1})
        except (EngineError, Refused):
            # The worker is gone, and all sessions with it.
            return
