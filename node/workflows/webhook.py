"""Results sent to somebody's server, signed as Standard Webhooks has it.

`webhook-id` names the entry, so that whoever gets it twice can tell. `webhook-signature` is `v1,`
and the HMAC-SHA256 of `ID.TIMESTAMP.BODY` under the secret, in base64.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

import trio

from node.ingest.http_post import HttpPoster
from node.ingest.location import read_url
from node.ingest.owned import OwnedSources
from wire.errors import InputError, Unreachable

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: after `whsec_` it is base64, else the text itself."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise InputError("a secret that begins with whsec_ goes on in base64") from error


def signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """What `webhook-signature` says."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


@dataclass(frozen=True, slots=True)
class Webhook:
    """One server that results are sent to."""

    url: str
    secret: str
    owned: OwnedSources
    poster: HttpPoster
    wall_s: Callable[[], float]

    async def send(self, message_id: str, body: bytes) -> None:
        """Send a result; TransportError, WireError or InputError if it was not taken."""
        location = read_url(self.url)
        rules = await trio.to_thread.run_sync(self.owned.rules)
        key = key_of(await trio.to_thread.run_sync(self.owned.credential, self.secret))
        timestamp_s = int(self.wall_s())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(key, message_id, timestamp_s, body),
        }
        status = await self.poster.post(location, headers, body, rules)
        if not 200 <= status < 300:
            raise Unreachable(f"{location.place} answered with status {status}")
