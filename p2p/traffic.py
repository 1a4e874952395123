"""Bytes that a peer sends and receives: counted, and held to the rates of its owner. A pure core.

Whoever moves bytes says how many, and waits as long as it is told; who comes next waits behind it,
so that all connections share a rate in turns.
"""

from dataclasses import dataclass

from p2p.relay_limits import Pacer

# What was not used for so long may be used at once.
BURST_S = 0.25


@dataclass(slots=True)
class Traffic:
    """All that one peer moved since it began, with what encryption and protocols add."""

    sent_bytes: int = 0
    received_bytes: int = 0
    _up: Pacer | None = None
    _down: Pacer | None = None

    def limit(self, up_bytes_per_s: float | None, down_bytes_per_s: float | None) -> None:
        """Keep to these rates from now on; None is no limit."""
        self._up = None if up_bytes_per_s is None else Pacer(up_bytes_per_s, BURST_S)
        self._down = None if down_bytes_per_s is None else Pacer(down_bytes_per_s, BURST_S)

    def sends(self, size_bytes: int, now_at_s: float) -> float:
        """Note bytes that are about to be sent, and how long to wait first."""
        self.sent_bytes += size_bytes
        return 0.0 if self._up is None else self._up.wait_s(size_bytes, now_at_s)

    def received(self, size_bytes: int, now_at_s: float) -> float:
        """Note bytes that came, and how long to wait before more are taken."""
        self.received_bytes += size_bytes
        return 0.0 if self._down is None else self._down.wait_s(size_bytes, now_at_s)
