"""What the economy reads from outside, for `fuzz records`: records, messages, files, headers."""

import io
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from node.apps.own_apps import read_apps
from node.commands.genesis import read_genesis
from node.commands.motion_file import read_motion
from node.gateway.evm_payment import read_evm
from node.gateway.x402_documents import PaymentOffer, encoded, read_payment
from node.ledger.chain_file import read_parts, replay
from node.workflows.entry_file import EntryFile, check_entry
from tests.ledger.test_chain_file import file_of, ledger
from tests.wire.samples import KEY, MESSAGES, OTHER_KEY, SIGNED, altered
from tests.workflows.test_feeds import RECORD, entry
from wire import limits
from wire.content import ContentId
from wire.invite_token import read_token, write_token
from wire.message import decode, encode
from wire.minisign import read_key, read_signature
from wire.signed import SignedRecord, open_signed, sign

Holds = Callable[[bytes], bool]
NOW_WALL_S = 1_800_000_000.0
OFFER = PaymentOffer(
    scheme="exact",
    network="eip155:8453",
    asset="0x" + "cd" * 20,
    amount=1000,
    pay_to="0x" + "ab" * 20,
    timeout_s=60,
    extra={"name": "USDC", "version": "2"},
)
MOTION = """
title = "More for growth"
why = "There is enough work."
epochs = 30
[grant]
to = "{key}"
step = "100"
steps = 4
use = "50"
"""
APPS = {
    "sequence": 1,
    "apps": [{"name": "notes", "mode": "open", "price": 0, "hold": 0}],
    "keys": [
        {
            "app": "notes",
            "label": "bob",
            "sha256": "ab" * 32,
            "budget": 5,
            "until_wall_s": 1_900_000_000,
            "per_minute": 60,
            "revoked": False,
            "account": None,
        }
    ],
}
MINISIGN_KEY = f"untrusted comment: a key\n{b64encode(b'Ed' + bytes(40)).decode()}\n"


def parsers(folder: Path) -> Mapping[str, tuple[bytes, Holds]]:
    """Each parser: bytes that it reads, and what says whether it takes others."""
    made, parts = ledger()
    told: dict[str, tuple[bytes, Holds]] = {
        "ledger": (file_of(parts), lambda raw: bool(replay(read_parts(io.BytesIO(raw))))),
        "genesis": (made.genesis.to_bytes(), _from_file(folder / "genesis", read_genesis)),
        "motion": (
            MOTION.format(key=KEY.peer).encode(),
            _from_file(folder / "motion.toml", lambda path: read_motion(path, 1)),
        ),
        "apps": (json.dumps(APPS).encode(), _apps(folder)),
        "invite": _invite(),
        "minisign key": (MINISIGN_KEY.encode(), _of_text(read_key)),
        "minisign": (_signature(), _of_text(read_signature)),
        "payment": (json.dumps(_payment()).encode(), _is_payment),
        "payment header": (encoded(_payment()).encode(), _is_header),
        "feed entry": (_entry(), lambda raw: check_entry(raw).failed is None),
    }
    for record in SIGNED:
        told[f"signed {type(record).__name__}"] = (sign(record, KEY).raw, _opens(type(record)))
    for message in MESSAGES:
        told[f"said {type(message).__name__}"] = (encode(message), lambda raw: bool(decode(raw)))
    return told


def _opens(kind: type[SignedRecord]) -> Holds:
    return lambda raw: bool(open_signed(raw, kind))


def _from_file(path: Path, read: Callable[[Path], object]) -> Holds:
    def holds(raw: bytes) -> bool:
        path.write_bytes(raw)
        return bool(read(path))

    return holds


def _apps(folder: Path) -> Holds:
    file = folder / "apps.json"
    file.touch(mode=0o600)
    return _from_file(file, read_apps)


def _of_text(read: Callable[[str], object]) -> Holds:
    return lambda raw: bool(read(raw.decode(errors="replace")))


def _invite() -> tuple[bytes, Holds]:
    invite = altered("Invite", claim_key=OTHER_KEY.peer)
    line = write_token(sign(invite, KEY), OTHER_KEY.seed)  # type: ignore[type-var]
    return line.encode(), _of_text(read_token)


def _signature() -> bytes:
    lines = [
        "untrusted comment: of a release",
        b64encode(b"ED" + bytes(72)).decode(),
        "trusted comment: 1",
        b64encode(bytes(64)).decode(),
    ]
    return ("\n".join(lines) + "\n").encode()


def _payment() -> dict[str, Any]:
    authorization = {
        "from": "0x" + "12" * 20,
        "to": OFFER.pay_to,
        "value": str(OFFER.amount),
        "validAfter": "0",
        "validBefore": str(int(NOW_WALL_S) + 3600),
        "nonce": "0x" + "34" * 32,
    }
    payload = {"signature": "0x" + "56" * 65, "authorization": authorization}
    return {"x402Version": 2, "accepted": OFFER.to_map(), "payload": payload}


def _is_payment(raw: bytes) -> bool:
    return _is_header(b64encode(raw))


def _is_header(raw: bytes) -> bool:
    found = read_payment({"payment-signature": raw.decode("latin-1")})
    if found is None or not OFFER.is_for(found) or OFFER.difference(found):
        return False
    return bool(read_evm(found, OFFER, NOW_WALL_S, limits.ATTEMPTS_MAX))


def _entry() -> bytes:
    file = EntryFile(
        record=RECORD.to_bytes(), entry=entry(1, result=ContentId.of(b"{}")).raw, result=b"{}"
    )
    return file.to_bytes()
