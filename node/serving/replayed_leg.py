"""A language model's answer, replayed once and judged segment by segment."""

from dataclasses import dataclass, replace

import trio

from node.engines.interface import REPLAY, Engine, Job, Loaded
from node.engines.margins import JudgedSegment, SegmentJudge, judged_each, table_for
from node.engines.replay import frames_max, request, tokens_before
from node.serving.claimed_leg import Found, wrong
from node.serving.findings import right, wrong_segments
from wire.calibration import Calibration
from wire.chain import segments_of
from wire.receipt import Receipt
from wire.signed import Signed
from wire.task import Stage


@dataclass(frozen=True, slots=True)
class ReplayedLeg:
    """A leg that somebody claims to have done: its input, and the output that was signed for."""

    stage: Stage
    receipt: Signed[Receipt]
    data: bytes
    output: bytes

    async def found(self, engine: Engine, loaded: Loaded, known: Calibration | None) -> Found:
        """What is found of it. WireError if the output is none; `known` are honest differences."""
        stage, receipt = self.stage, self.receipt.record
        assert stage.model is not None
        before = segments_of(self.receipt)
        # Each segment by what is known of the engine that made it.
        judges = [
            SegmentJudge(
                table_for(known, doer, loaded.profile),
                is_exact=loaded.same_bits_as(doer),
            )
            for doer in (*(it.record.profile for it in before), receipt.profile)
        ]
        slack = max(0.0 if it.is_exact else it.table.slack_millionths / 1e6 for it in judges)
        most = frames_max(loaded.manifest.parameters.get("context"))
        # Many pieces take seconds to read, and others are served meanwhile.
        asked = await trio.to_thread.run_sync(request, self.data, self.output, slack, most)
        sizes = [it.record.size_bytes for it in before]
        ends = await trio.to_thread.run_sync(tokens_before, self.output, sizes)
        left_s = trio.current_effective_deadline() - trio.current_time()
        job = Job(
            model=stage.model,
            operation=REPLAY,
            input=asked.to_bytes(),
            parameters=stage.parameters,
            deadline_s=max(0.0, left_s),
        )
        told, units = (await engine.infer(job)).data, max(1, len(asked.claimed) // 4)
        judged = await trio.to_thread.run_sync(judged_each, self.output, told, ends, judges)
        if not judged[-1].reason and receipt.units != units:
            judged[-1] = replace(judged[-1], reason=f"the work was {units} units")
        for row, segment in enumerate(before):
            if segment.record.end != ends[row]:
                judged[row] = replace(judged[row], reason=f"it ends with token {ends[row]}")
        return self._told(judged)

    def _told(self, judged: list[JudgedSegment]) -> Found:
        """What was measured of each segment, and which of them are wrong."""
        bad = {row: it.reason for row, it in enumerate(judged) if it.reason}
        measured = tuple(it.statistics for it in judged)
        if len(judged) == 1:
            return replace(wrong(1, bad[0]) if bad else right(), replay=measured)
        reason = "; ".join(f"segment {row + 1}: {why}" for row, why in bad.items())
        found = replace(right(), replay=measured)
        return wrong_segments(self.receipt, frozenset(bad), reason, found)
