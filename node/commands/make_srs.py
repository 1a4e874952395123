"""`models srs`: a structured reference string made at home, and what it is worth."""

from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from node.commands.output import console, safe, show_json
from node.engines.proving.process import KEY_S_MAX, LIBRARY, asked_of_worker, library_version
from node.engines.proving.srs import read_srs, trust_words
from wire.errors import InputError


async def make_srs(out: Path, *, as_json: bool) -> None:
    """Write an SRS to a new file; InputError if it is there, or if ezkl is not installed."""
    if library_version() is None:
        raise InputError(
            f"{LIBRARY} is not installed, and makes such files", todo="pip install 'baton[zk]'"
        )
    if out.exists():
        raise InputError(f"{out} is there already", todo="name another file")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}", todo="make it, or name another file")
    with TemporaryDirectory(prefix="baton-srs-") as work:
        await asked_of_worker(
            {"do": "srs", "path": str(out.absolute())}, Path(work), timeout_s=KEY_S_MAX
        )
    srs = await trio.to_thread.run_sync(read_srs, out)
    if as_json:
        show_json({"file": str(out), "sha256": srs.digest.hex(), "trust": trust_words(srs.digest)})
        return
    console.print(f"wrote {safe(out)}, sha256 {srs.digest.hex()}")
    console.print(f"Careful: {trust_words(srs.digest)}.")
    console.print("Give it to every peer that makes or checks proofs: join --srs FILE")
