"""Baton's transport over py-libp2p: the only package that imports libp2p."""

from p2p.over_libp2p.memory_network import ListenerKey, MemoryNetwork
from p2p.over_libp2p.routers import Router, Routers, Site
from p2p.over_libp2p.transports import MemoryTransport, TcpTransport

__all__ = [
    "ListenerKey",
    "MemoryNetwork",
    "MemoryTransport",
    "Router",
    "Routers",
    "Site",
    "TcpTransport",
]
