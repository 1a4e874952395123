"""What the peer tells the service manager that started it, as systemd's `sd_notify` has it.

The manager is told that the peer lives only after the loop, the thread that writes to the disk and
the disk itself were seen to work; else it kills the peer and starts it again.
"""

import socket
from contextlib import suppress
from dataclasses import dataclass

import trio

from node.peer import Node
from store.seam import Table
from wire.errors import StoreError
from wire.plural import plural

# How often a manager that wants no signs of life is told how the peer is.
TELL_S = 60.0
# A sign of life comes this often within the time after which the peer is taken for dead.
SIGNS = 3
_ALIVE = b"alive"


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Where the manager listens, a path or @name; "" if none started this process.

    After `watchdog_s` without a sign of life it ends the peer; 0: never.
    """

    address: str = ""
    watchdog_s: float = 0.0

    def tell(self, **fields: object) -> None:
        """Send one message; one that nobody takes is lost, as `sd_notify` has it."""
        if not self.address:
            return
        text = "\n".join(f"{name.upper()}={value}" for name, value in fields.items())
        # A name of the kernel's own, beside the file system, begins with a zero.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling, suppress(OSError):
            telling.setblocking(False)
            telling.sendto(text.encode(), address)


async def keep_told(node: Node, manager: ServiceManager) -> None:
    """Tell the manager that the peer is up, and then that it lives, until cancelled."""
    if not manager.address:
        return
    manager.tell(ready=1, status=_words(node))
    every_s = manager.watchdog_s / SIGNS if manager.watchdog_s else TELL_S
    environment, store = node.dependencies.environment, node.dependencies.store
    while True:
        await trio.sleep(every_s)
        try:
            await store.write(Table.META, _ALIVE, str(int(environment.wall_s())).encode())
        except StoreError as error:
            # A full disk is told, and is no reason to start again; one that hangs is, and says so
            # by never coming here.
            manager.tell(watchdog=1, status=error.message)
        else:
            manager.tell(watchdog=1, status=_words(node))


def _words(node: Node) -> str:
    answered, connected = node.peers.answered_last_minute()
    paused = f"paused: {node.leg_server.paused}; " if node.leg_server.paused else ""
    return (
        f"{paused}{answered} of {plural(connected, 'peer')} answered,"
        f" {plural(node.leg_server.done, 'leg')} done"
    )
