"""What many accounts cost a member of the ledger: memory, disk, a checkpoint, and a start.

`python -m tests.bench accounts 1000000`. The accounts of a checkpoint are hashed anew where one of
their shelf has changed; an epoch that changes as many as one may touches every shelf.
"""

import hashlib
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from node.ledger.books import CHANGED_MAX, Account, Books
from node.ledger.member_role import scan_all
from node.ledger.rows import ACCOUNTS, account_row, read_books
from store import Row, Table, Write, open_store

ACCOUNTS_DEFAULT = 1_000_000
ROWS_PER_COMMIT = 20_000
BALANCE = 5_000


def run(arguments: list[str]) -> dict[str, Any]:
    """Seconds of processor time, and bytes."""
    count = int(arguments[0]) if arguments else ACCOUNTS_DEFAULT
    before_bytes, books = _resident_bytes(), Books(0, 1000)
    began_s = time.process_time()
    for number in range(count):
        books.put_account(_key(number), Account(BALANCE, 0))
    filled_s = time.process_time() - began_s
    found: dict[str, Any] = {
        "accounts": count,
        "fill_s": round(filled_s, 2),
        "memory_bytes_each": (_resident_bytes() - before_bytes) // count,
        "first_digest_s": round(_digest_s(books), 2),
    }
    for number in range(min(count, CHANGED_MAX)):
        books.put_account(_key(number), Account(BALANCE, 1))
    found["digest_after_changes_s"] = round(_digest_s(books), 2)
    found["changed"] = min(count, CHANGED_MAX)
    found["disk"] = trio.run(_on_disk, books, count)
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["held"] = found["disk"].pop("same") and books.supply == count * BALANCE
    return found


async def _on_disk(books: Books, count: int) -> dict[str, Any]:
    """Write all rows, and read them back as a start does."""
    rows = [account_row(key, it) for shelf in books.accounts for key, it in shelf.items()]
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder), quota_bytes=1 << 30) as store:
            began_s = time.process_time()
            for at in range(0, count, ROWS_PER_COMMIT):
                part = rows[at : at + ROWS_PER_COMMIT]
                await store.commit(Write(rows=tuple(Row(Table.LEDGER, *it) for it in part)))
            written_s = time.process_time() - began_s
            files = [it for it in Path(folder).rglob("*") if it.is_file()]
            disk_bytes = sum(it.stat().st_blocks * 512 for it in files)
            began_s, again = time.process_time(), Books(0, 1000)
            read_books(again, scan_all(store, ACCOUNTS), ())
            read_s = time.process_time() - began_s
    return {
        "write_s": round(written_s, 2),
        "bytes_each": disk_bytes // count,
        "read_s": round(read_s, 2),
        "same": again.digest() == books.digest(),
    }


def _digest_s(books: Books) -> float:
    began_s = time.process_time()
    books.digest()
    return time.process_time() - began_s


def _key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
