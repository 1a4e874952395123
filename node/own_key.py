"""The key of the peer whose state folder this is: never another than its store was filled by."""

from collections.abc import Callable
from pathlib import Path

from store import Store, Table, key_seed
from store.folder import KEY_FILE, lost_key
from wire.signing import SigningKey

# What is kept for one key alone, and what of it would be lost under another.
_OF_ONE_KEY = {
    Table.MEMBERS: "its membership",
    Table.LEDGER: "its credits",
    Table.WALLET: "its credits",
    Table.CHANNELS: "its credits",
    Table.LOG: "its receipts and standing",
    Table.RECEIPTS: "its receipts and standing",
}


def own_key(state: Path, store: Store, fresh: Callable[[], bytes]) -> SigningKey:
    """The peer's key, made by `fresh` in a folder that none has used; it waits for the disk.

    StoreUnusable if it is gone from a folder that one has used, or is not to be trusted.
    """
    if not (state / KEY_FILE).exists():
        held = [words for table, words in _OF_ONE_KEY.items() if store.scan(table, limit=1)]
        if held:
            raise lost_key(state, tuple(dict.fromkeys(held)))
    return SigningKey(key_seed(state, fresh))
