"""What this peer contributes to others' draws of verifiers: the output of its key, with a proof.

It costs a third of a millisecond, and whoever asks could be trying draws until one suits it. So an
asker, and all askers at one address prefix, are answered for a bounded number of receipts.
"""

from dataclasses import dataclass, field

import trio

from p2p.peer_rpc import Handler
from p2p.peers import Peers
from p2p.token_bucket import TokenBucket, TokenBuckets
from p2p.typed_call import TypedCall, refusal_of
from wire.content import PeerId
from wire.contribution import AskContribution, Contributed, words_of
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.message import Message
from wire.vrf import prove

# Receipts for which one asker is answered; of an address prefix four times as many.
RECEIPTS_PER_S = 64.0
RECEIPTS_AT_ONCE = 256.0
ASKERS_PER_PREFIX = 4.0
# Answers to all together: at most a tenth of a core. One prefix is answered less often, or many
# keys of one owner could have nobody else's draws contributed to.
ANSWERS_PER_S = 4 * RECEIPTS_PER_S
ANSWERS_AT_ONCE = 4 * RECEIPTS_AT_ONCE


@dataclass(slots=True)
class ContributeRole:
    """Contributes to draws; `willing` if this peer may be drawn itself."""

    peers: Peers
    willing: bool
    _askers: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(RECEIPTS_AT_ONCE, RECEIPTS_PER_S)
    )
    _proofs: TokenBucket = field(
        default_factory=lambda: TokenBucket(ANSWERS_AT_ONCE, ANSWERS_PER_S)
    )

    def handlers(self) -> dict[type[Message], Handler]:
        """What answers each message."""
        return {AskContribution: self.on_ask}

    async def on_ask(self, call: TypedCall, message: Message) -> None:
        """Answer an AskContribution, or refuse."""
        assert isinstance(message, AskContribution)
        try:
            self._check_room(call.peer, message.count, trio.current_time())
        except Refused as error:
            await call.send(refusal_of(error))
            return
        words = words_of(call.peer, message.root, message.count)
        await call.send(Contributed(proof=prove(self.peers.key, words)))

    def _check_room(self, asker: PeerId, receipts: int, now_at_s: float) -> None:
        """Refused if this asker, or all together, asked for too many; else it is counted."""
        if not self.willing:
            raise Refused("this peer does not verify", code=RefusalCode.NOT_WILLING)
        prefix = self.peers.view.origins.of(asker, asker)
        # So many receipts weigh on the prefix as a part of what they weigh on the asker. One answer
        # weighs one at least, so that a prefix has no more than a quarter of all answers; and half
        # of them is left of those that came by a relay, or in some other way have no prefix.
        weight = max(1.0, receipts / ASKERS_PER_PREFIX)
        shares = {str(asker): float(receipts), prefix: weight if prefix else weight / 2}
        wait_s = max(self._askers.wait_s(it, now_at_s) for it in shares)
        wait_s = max(wait_s, self._proofs.wait_s(now_at_s))
        if wait_s > 0:
            raise Refused("too many draws at once", code=RefusalCode.BUSY, retry_after_s=wait_s)
        self._proofs.spend(1.0, now_at_s)
        for key, tokens in shares.items():
            self._askers.spend(key, tokens, now_at_s)
