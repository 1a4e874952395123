"""Outside data on this machine: the system's names, its network, and the authorities it trusts."""

import ssl
from collections.abc import Callable
from pathlib import Path

from node.ingest.bring import Ingest
from node.ingest.dataset import GetContent
from node.ingest.extractor import Extractor
from node.ingest.guard import real_network
from node.ingest.http_fetch import HttpFetcher
from node.ingest.http_post import HttpPoster
from node.ingest.owned import OwnedSources


def open_ingest(
    state: Path, wall_s: Callable[[], float], get_content: GetContent | None = None
) -> Ingest:
    """What brings in the sources of the peer with this state folder. It reads the disk.

    `get_content` is how published content is found; a peer that runs has its own way.
    """
    fetcher = HttpFetcher(real_network(), ssl.create_default_context())
    return Ingest(OwnedSources(state), fetcher, Extractor(), wall_s, get_content)


def open_poster() -> HttpPoster:
    """What sends results to servers. It reads the disk."""
    return HttpPoster(real_network(), ssl.create_default_context())
