"""Checking a call by the proof that came with its output: nothing is computed again."""

import trio

from node.serving.claimed_leg import ClaimedLeg, Found, wrong, wrong_units
from node.serving.infer_role import InferRole


async def found_by_proof(role: InferRole, claim: ClaimedLeg) -> Found:
    """What the proof of a call shows; Refused, EngineError or StoreError if it cannot be checked.

    It takes as long as the deadline around it lets it.
    """
    loaded, data = role.check_able(claim.stage), claim.source.data
    assert data is not None
    proofs, model = role.prover_of(loaded), await role.provable(loaded)
    left_s = trio.current_effective_deadline() - trio.current_time()
    if why := await proofs.rejected(model, data, claim.output, max(0.0, left_s)):
        return wrong(1, why)
    if claim.receipt.record.units != 1:
        return wrong_units(1, 1)
    return Found(rows=1, sampled=(0,), worst_ppb=(0,))
