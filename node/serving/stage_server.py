"""Serving a range of a model's layers: rows of another peer's pass go through the engine, in order.

Who opens has a session with pages of its own. What it sends wrong ends its session and nothing
else; a peer that pauses or leaves says so at the next pass, and the asker goes elsewhere. What went
through is signed when the asker wants it.
"""

from dataclasses import dataclass, field

import trio

from node.engines.interface import Engine, Job
from node.engines.other_layers import BEGIN, END, SESSION
from node.serving.leg_server import LegServer
from node.serving.stage_sessions import StageSession, StageSessions
from p2p import timeouts
from p2p.peers import Peers
from p2p.typed_call import TypedCall, refusal_of
from wire.content import ContentId
from wire.errors import EngineError, ModelRefused, Refused, RemoteProtocolError
from wire.kinds import RefusalCode, Role
from wire.message import Message
from wire.operations import STAGE
from wire.signed import sign
from wire.signing import SigningKey
from wire.stage import (
    StageClose,
    StageLeg,
    StageOpen,
    StageOpened,
    StagePass,
    StagePassed,
    StageSign,
    StageSigned,
)

PASS_S = 60.0
# A session without a pass for so long is ended. Askers end theirs sooner.
IDLE_S = 300.0


@dataclass(slots=True)
class _Waiting:
    """The wait for a session's next pass, which somebody else may end."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: bool = False

    def end(self) -> None:
        self.ended = True
        self.scope.cancel()


@dataclass(slots=True)
class StageServer:
    """`on_open` answers a StageOpen."""

    engine: Engine
    legs: LegServer
    peers: Peers
    key: SigningKey
    passes: int = 0
    rows: int = 0
    signed: int = 0
    _numbers: int = 0
    _sessions: StageSessions = field(default_factory=StageSessions)
    # Set when a session has given its pages back.
    _freed: trio.Event = field(default_factory=trio.Event)

    @property
    def sessions(self) -> int:
        """Sessions that stand now."""
        return len(self._sessions)

    async def on_open(self, call: TypedCall, message: Message) -> None:
        """Serve one session until its asker closes it."""
        assert isinstance(message, StageOpen)
        self._numbers += 1
        now_at_s, waiting = trio.current_time(), _Waiting()
        prefix = self.peers.view.origins.of(call.peer, call.peer)
        session = StageSession(
            self._numbers, call.peer, prefix, now_at_s, waiting.end, message.model
        )
        try:
            self._check_able(message)
            self._sessions.make_room(call.peer, prefix, now_at_s)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        self._sessions.add(session)
        try:
            await self._serve(call, message, session, waiting)
        except (EngineError, Refused) as error:
            await call.send(refusal_of(error))
        finally:
            self._sessions.remove(session)
            with trio.CancelScope(shield=True), timeouts.move_on_after(PASS_S):
                await self._end(message.model, session.number)
            self._freed.set()
            self._freed = trio.Event()

    async def _serve(
        self, call: TypedCall, opening: StageOpen, session: StageSession, waiting: _Waiting
    ) -> None:
        await call.send(StageOpened(pages=await self._begin(opening, session)))
        session.used_at_s, number = trio.current_time(), 0
        while True:
            message = await self._next(call, waiting)
            if isinstance(message, StageClose):
                return
            if isinstance(message, StageSign):
                await call.send(self._signed(opening, session, message))
                continue
            assert isinstance(message, StagePass), "the table of conversations lets nothing else"
            if message.number != number:
                raise RemoteProtocolError(f"pass {message.number} where {number} comes next")
            self._check_able(opening)
            session.busy = True
            data = await self._do(opening.model, {SESSION: session.number}, message.rows.to_bytes())
            session.busy, session.used_at_s = False, trio.current_time()
            session.log.went_through(message.rows, data)
            session.unsigned += 1
            await call.send(StagePassed(number=number, data=data))
            self.passes += 1
            self.rows += len(message.rows.owners)
            number += 1

    async def _begin(self, opening: StageOpen, session: StageSession) -> int:
        """How many pages a session has; where none are free others that use none make room."""
        session.busy = True
        while True:
            freed = self._freed
            try:
                wanted = {SESSION: session.number, BEGIN: opening.pages}
                granted = await self._do(opening.model, wanted)
            except ModelRefused:
                if not self._sessions.take_back(opening.model, trio.current_time()):
                    raise
                with timeouts.move_on_after(PASS_S):
                    await freed.wait()
            else:
                session.busy = False
                return int.from_bytes(granted, "little")

    async def _next(self, call: TypedCall, waiting: _Waiting) -> Message:
        """What the asker says next; Refused if it says nothing for long, or has to make room."""
        with trio.move_on_after(IDLE_S) as waiting.scope:
            return await call.receive()
        if not waiting.ended:
            raise Refused(f"no pass for {IDLE_S:.0f} s", code=RefusalCode.LATE)
        raise Refused("others want these layers, and you have not used them", retry_after_s=1.0)

    def _signed(self, opening: StageOpen, session: StageSession, asked: StageSign) -> StageSigned:
        if not session.unsigned:
            raise Refused("nothing went through since this was signed", code=RefusalCode.MALFORMED)
        session.unsigned -= 1
        before, after = session.log.digests(asked.table, asked.rows)
        leg = StageLeg(
            model=opening.model,
            first=opening.first,
            last=opening.last,
            asker=session.asker,
            rows=asked.rows,
            input=before,
            output=after,
            signed_at_ms=int(self.peers.environment.wall_s() * 1000),
        )
        self.signed += 1
        return StageSigned(leg=sign(leg, self.key).raw)

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
