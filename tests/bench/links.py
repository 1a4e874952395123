"""The demo over a bad line: seven peers on two sides of 100 ms and 2 % loss, each way.

The data peer, which is the bootstrap, and the verifiers are on one side; the inference peers and
the asking peer on the other. Everything else is `python -m node demo`: the model, the killed peer,
the receipt.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.commands.demo_peers import DemoPeer, planned
from node.commands.demo_story import Story, tell_story
from tests.bench._link import Link, NotPermittedError, Side, open_link
from wire.errors import BatonError

QUESTION = "how do I catch several exceptions at once?"
MODEL_DEADLINE_S = 1200.0
PROBES = 20
CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# This runs on one side: it connects to the other repeatedly and prints the milliseconds it took.
CONNECTING = """
import socket, sys, time
for _ in range(int(sys.argv[3])):
    begun_s = time.monotonic()
    socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
    print((time.monotonic() - begun_s) * 1000)
"""


def run(arguments: list[str]) -> dict[str, Any]:
    """The demo's own document, and what the line did to it; `held` says whether it completed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench links")
    parser.add_argument("--delay-ms", type=float, default=100.0, help="each way")
    parser.add_argument("--loss", type=float, default=0.02, help="each way")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", choices=("minilm", "hash"), default="minilm")
    parser.add_argument(
        "--model-travels",
        action="store_true",
        help="only one side has the model at first: 90 MB go over the line, which takes long",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="baton-links-") as folder:
        try:
            return trio.run(_measured, options, Path(folder))
        except NotPermittedError as error:
            return {"skipped": str(error)}


async def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    story = Story(folder, QUESTION, (), model=options.model, model_deadline_s=MODEL_DEADLINE_S)
    random = Random(options.seed)
    trouble = ""
    async with open_link(options.delay_ms / 1000, options.loss, random) as link:
        peers = planned(folder, ())
        story.peers = placed(peers, link, options.model, model_travels=options.model_travels)
        async with trio.open_nursery() as nursery:
            probed: list[float] = []
            nursery.start_soon(_probe, link, story.peers[0], probed)
            try:
                await tell_story(story, _teller())
            except* BatonError as errors:
                trouble = "; ".join(str(it) for it in errors.exceptions)
            nursery.cancel_scope.cancel()
    settings = {
        name: getattr(options, name) for name in ("model", "delay_ms", "loss", "model_travels")
    }
    return {
        "held": not trouble and story.receipt_holds,
        "trouble": trouble,
        **settings,
        "how": link.how,
        # How TCP reacts to losses depends mostly on this setting.
        "congestion_control": CONGESTION_CONTROL.read_text().strip(),
        "connect_ms": {"least": min(probed), "most": max(probed)} if probed else None,
        "packets": {
            "carried": link.carried,
            "dropped": link.dropped,
            "overflowed": link.overflowed,
        },
        "demo": story.document() if not trouble else None,
    }


def placed(peers: list[DemoPeer], link: Link, model: str, *, model_travels: bool) -> list[DemoPeer]:
    """The demo's peers, each on its side of the line."""
    near, far = link.sides
    for peer in peers:
        side: Side = far if peer.name.startswith(("infer", "asker")) else near
        # Peers that travel far are measured with the one model.
        peer.writer = None
        peer.within, peer.listen = side.within, f"/ip4/{side.address}/tcp/0"
        if model != "minilm":
            peer.model = model if peer.model else None
        elif peer.name == "verify-1" and not model_travels:
            # The model is on this side too; the other peers on this side fetch it from this one.
            peer.model = "minilm"
    return peers


def _teller() -> Callable[[str], None]:
    began_at_s = trio.current_time()

    def tell(line: str) -> None:
        sys.stderr.write(f"{trio.current_time() - began_at_s:6.1f} s  {line}\n")

    return tell


async def _probe(link: Link, peer: DemoPeer, found: list[float]) -> None:
    """How long the kernel's TCP takes to connect over the line while the line is idle."""
    far = link.sides[1]
    listening = Path(peer.state / "control.sock")
    while not (listening.exists() and peer.process is not None and peer.id):
        await trio.sleep(0.1)
    port = await trio.to_thread.run_sync(_port_of, peer)
    command = [*far.within, sys.executable, "-c", CONNECTING, link.sides[0].address, str(port)]
    done = await trio.run_process(
        [*command, str(PROBES)], capture_stdout=True, stderr=subprocess.DEVNULL, check=False
    )
    found.extend(round(float(it), 1) for it in done.stdout.split())


def _port_of(peer: DemoPeer) -> int:
    """The port on which the peer listens, as the kernel reports it."""
    listing = subprocess.run(
        [*peer.within, "ss", "-H", "-l", "-t", "-n"], capture_output=True, text=True, check=True
    )
    return int(listing.stdout.split()[3].rpartition(":")[2])
