"""Baton's transport over py-libp2p: the only package that imports libp2p."""

from p2p.over_libp2p.memory import MemoryNetwork
from p2p.over_libp2p.transports import MemoryTransport, TcpTransport

__all__ = ["MemoryNetwork", "MemoryTransport", "TcpTransport"]
