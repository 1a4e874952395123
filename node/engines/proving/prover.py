"""Keys and proofs of circuits, made in processes of their own; the keys are kept in a folder.

A key belongs to a model's file, a number of rows, the settings, the version of ezkl and the SRS:
each peer makes it from these itself, once, and nobody is believed about one. Making one takes most
of a minute; whoever waits no longer than that asks again, and finds it.
"""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from node.engines.formats.onnx_file import read_model
from node.engines.proving.circuit import (
    RECIPE,
    Circuit,
    check_provable,
    check_size,
    from_field,
    rows_asked,
    to_field,
)
from node.engines.proving.interface import ProvableModel
from node.engines.proving.process import (
    CHECK_S_MAX,
    KEY_S_MAX,
    LIBRARY,
    asked_of_worker,
    library_version,
)
from node.engines.proving.srs import Srs, read_srs
from wire.codec import Value, pack, unpack
from wire.errors import (
    BatonError,
    EngineFailed,
    EngineMissing,
    Malformed,
    ModelRefused,
    Refused,
    WireError,
)
from wire.latest import Latest
from wire.tensors import CircuitProof, Tensors

# The folder of circuits, within a peer's state.
CIRCUITS = "circuits"
# The whole of a circuit's folder is there once this file is.
PUBLIC, MODEL, PROVING_KEY = "circuit.public", "model.onnx", "proving.key"
VERIFYING_KEY = "verifying.key"
PUBLIC_BYTES_MAX = 64 << 10
# Keys and proofs take all the cores they get; those who wait for them, and those who check.
MAKERS_MAX, WAITING_MAX, CHECKERS_MAX = 1, 4, 2
FOLDERS_MAX, FOLDERS_BYTES_MAX = 32, 4 << 30
# A model of which no circuit could be made is not tried again for so long.
RETRY_S = 600.0


@dataclass(slots=True)
class _Making:
    """A circuit that is being made, and why it could not be."""

    ended: trio.Event = field(default_factory=trio.Event)
    error: BatonError | None = None


@dataclass(slots=True)
class EzklProofs:
    """See `node.engines.proving.interface.Proofs`. Made by `open_proofs`.

    `folder` keeps the circuits. With `proves` the keys of proofs are kept too, 200 MB each.
    """

    folder: Path
    srs: Srs
    nursery: trio.Nursery
    proves: bool = True
    library: str | None = field(default_factory=library_version)
    # Has one message answered by a process of its own.
    ask: Callable[..., Awaitable[dict[str, Any]]] = asked_of_worker
    _making: dict[str, _Making] = field(default_factory=dict)
    _failed: Latest[str, tuple[float, BatonError]] = field(default_factory=lambda: Latest(64))
    _makers: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAKERS_MAX))
    _checkers: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(CHECKERS_MAX)
    )
    _waiting: int = 0

    @property
    def system(self) -> str:
        """What makes the proofs, with its version, as proofs name it."""
        return f"{LIBRARY} {self.library}"

    def refusal(self) -> str:
        if self.library is None:
            return f"{LIBRARY} is not installed here: pip install 'baton[zk]'"
        return ""

    async def prepare(self, model: ProvableModel) -> None:
        self._srs()
        await self._circuit(model, None)

    async def prove(self, model: ProvableModel, source: bytes, deadline_s: float) -> bytes:
        srs = self._srs()
        folder, circuit = await self._in_time(model, source, deadline_s)
        asked = circuit.numbers_in(source)
        until_at_s = trio.current_time() + deadline_s
        with self._place():
            async with self._turn(deadline_s):
                with TemporaryDirectory(dir=self.folder, prefix="work-") as work:
                    reply = await self.ask(
                        {
                            "do": "prove",
                            "folder": str(folder),
                            "work": work,
                            "srs": str(srs.path),
                            "inputs": _rescaled(circuit, asked),
                        },
                        Path(work),
                        timeout_s=max(0.1, until_at_s - trio.current_time()),
                    )
        try:
            numbers = [from_field(it) for it in reply["numbers"]]
            if numbers[: len(asked)] != asked:
                raise Malformed("its proof is of another input")
            proof = CircuitProof(
                system=self.system, srs=srs.digest, key=circuit.key, proof=reply["proof"]
            )
            tensors = circuit.tensors_of(numbers[len(asked) :])
        except WireError as error:
            raise EngineFailed(f"no output was made of the proof: {error.message}") from error
        output = Tensors(tensors=tensors, proofs=(proof,)).to_bytes()
        if why := await self.rejected(
            model, source, output, max(1.0, until_at_s - trio.current_time())
        ):
            raise EngineFailed(f"the proof that was made here does not hold: {why}")
        return output

    async def rejected(
        self, model: ProvableModel, source: bytes, output: bytes, deadline_s: float
    ) -> str:
        srs = self._srs()
        try:
            claimed = Tensors.from_bytes(output)
        except WireError as error:
            return f"the output cannot be read: {error.message}"
        if not claimed.proofs:
            return "the output has no proof"
        (proof,) = claimed.proofs
        if proof.system != self.system or proof.srs != srs.digest:
            # An honest peer may have these: it says nothing against whoever proved.
            raise Refused(
                f"the proof is of {proof.system} with the SRS {proof.srs.hex()[:16]}, and here are"
                f" {self.system} and {srs.digest.hex()[:16]}"
            )
        try:
            folder, circuit = await self._in_time(model, source, deadline_s)
            numbers = circuit.numbers_in(source) + circuit.numbers_out(claimed)
        except WireError as error:
            return error.message
        if proof.key != circuit.key:
            return "it is a proof of another circuit: its key is not the one made of this model"
        async with self._checkers:
            with TemporaryDirectory(dir=self.folder, prefix="work-") as work:
                message: dict[str, Value] = {
                    "do": "check",
                    "folder": str(folder),
                    "work": work,
                    "srs": str(srs.path),
                    "srs_digest": srs.digest,
                    "numbers": [to_field(it) for it in numbers],
                    "proof": proof.proof,
                }
                try:
                    reply = await self._checked(message, Path(work))
                except (EngineFailed, ModelRefused) as error:
                    # Checking takes a tenth of a second: what ends or outlasts it is the proof.
                    return f"checking the proof failed: {error.message}"
        rejected = reply["rejected"]
        return f"the proof does not hold: {rejected}" if rejected else ""

    async def _checked(self, message: dict[str, Value], work: Path) -> dict[str, Any]:
        """What a process says of a proof. One that ended is asked once more, as it may have been
        this machine that ended it.
        """
        with suppress(EngineFailed):
            return await self.ask(message, work, timeout_s=CHECK_S_MAX, checks=True)
        return await self.ask(message, work, timeout_s=CHECK_S_MAX, checks=True)

    def _srs(self) -> Srs:
        if why := self.refusal():
            raise EngineMissing(why)
        return self.srs

    @asynccontextmanager
    async def _turn(self, deadline_s: float) -> AsyncIterator[None]:
        """One of the few who make something now; Refused if none is free in time."""
        with trio.move_on_after(deadline_s) as waited:
            await self._makers.acquire()
        if waited.cancelled_caught:
            raise Refused("other proofs are being made here", retry_after_s=10.0)
        try:
            yield
        finally:
            self._makers.release()

    def _place(self) -> "_Place":
        if self._waiting >= WAITING_MAX:
            raise Refused(f"{self._waiting} proofs wait here already", retry_after_s=10.0)
        return _Place(self)

    async def _in_time(
        self, model: ProvableModel, source: bytes, deadline_s: float
    ) -> tuple[Path, Circuit]:
        """The circuit for an input; Refused if its key is not made within the deadline."""
        with trio.move_on_after(deadline_s):
            return await self._circuit(model, source)
        raise Refused(
            f"the key of {model.name} is still being made here from the model", retry_after_s=20.0
        )

    async def _circuit(self, model: ProvableModel, source: bytes | None) -> tuple[Path, Circuit]:
        check_size(len(model.data))
        rows = await trio.to_thread.run_sync(self._rows, model, source)
        name = self._name(model, rows)
        kept = await trio.to_thread.run_sync(self._kept, name)
        if kept is not None:
            return kept
        failed_at_s, error = self._failed.get(name, (float("-inf"), None))
        if error is not None and trio.current_time() - failed_at_s < RETRY_S:
            raise error
        making = self._making.get(name)
        if making is None:
            if len(self._making) >= WAITING_MAX:
                raise Refused("other keys are being made here", retry_after_s=20.0)
            making = self._making[name] = _Making()
            self.nursery.start_soon(self._make, name, model, rows, making)
        await making.ended.wait()
        if making.error is not None:
            raise making.error
        made = await trio.to_thread.run_sync(self._kept, name)
        if made is None:
            raise EngineFailed(f"the key of {model.name} was made, and is gone")
        return made

    def _rows(self, model: ProvableModel, source: bytes | None) -> int:
        """How many rows are asked for, of a model that can be proved; 1 where nobody asks."""
        with TemporaryDirectory(dir=self.folder, prefix="work-") as work:
            file = Path(work) / MODEL
            file.write_bytes(model.data)
            read = read_model(file)
            check_provable(read)
            return 1 if source is None else rows_asked(read, source)

    def _name(self, model: ProvableModel, rows: int) -> str:
        """The folder of a circuit: all that decides its key."""
        decides: list[Value] = [
            RECIPE,
            self.system,
            self.srs.digest,
            str(model.content),
            rows,
        ]
        return hashlib.sha256(pack(decides)).hexdigest()[:32]

    def _kept(self, name: str) -> tuple[Path, Circuit] | None:
        """A circuit that is here, and what is needed of it; it counts as used now."""
        folder = self.folder / name
        if self.proves and not (folder / PROVING_KEY).exists():
            return None
        try:
            plain = unpack((folder / PUBLIC).read_bytes(), size_bytes_max=PUBLIC_BYTES_MAX)
            assert isinstance(plain, dict), "this peer wrote it"
            circuit = Circuit.of(plain)
            with (folder / VERIFYING_KEY).open("rb") as file:
                key = hashlib.file_digest(file, "sha256").digest()
            os.utime(folder)
        except (OSError, WireError):
            return None
        # A key that is damaged would make every honest prover a liar: it is made again.
        return (folder, circuit) if key == circuit.key else None

    async def _make(self, name: str, model: ProvableModel, rows: int, making: _Making) -> None:
        try:
            async with self._makers:
                await self._made(name, model, rows)
        except BatonError as error:
            making.error = error
            self._failed[name] = (trio.current_time(), error)
        except OSError as error:
            making.error = EngineFailed(f"the key of {model.name} cannot be kept: {error}")
        finally:
            del self._making[name]
            making.ended.set()

    async def _made(self, name: str, model: ProvableModel, rows: int) -> None:
        srs = self._srs()
        with TemporaryDirectory(dir=self.folder, prefix="work-") as work:
            folder = Path(work) / name
            folder.mkdir()
            (folder / MODEL).write_bytes(model.data)
            reply = await self.ask(
                {
                    "do": "key",
                    "folder": str(folder),
                    "srs": str(srs.path),
                    "rows": rows,
                    "proves": self.proves,
                },
                Path(work),
                timeout_s=KEY_S_MAX,
            )
            (folder / PUBLIC).write_bytes(pack(reply["circuit"]))
            await trio.to_thread.run_sync(self._put, folder, name)

    def _put(self, made: Path, name: str) -> None:
        """Keep a circuit's folder, and only as many as there is room for, the latest used."""
        for file in made.iterdir():
            with file.open("rb") as data:
                os.fsync(data.fileno())
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        kept = sorted(
            (it for it in self.folder.iterdir() if (it / PUBLIC).exists() and it != target),
            key=lambda it: it.stat().st_mtime,
            reverse=True,
        )
        left_bytes = FOLDERS_BYTES_MAX - _size_bytes(target)
        for count, folder in enumerate(kept, 2):
            left_bytes -= _size_bytes(folder)
            if count > FOLDERS_MAX or left_bytes < 0:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Place:
    """One who waits for a proof, as a block."""

    proofs: EzklProofs

    def __enter__(self) -> None:
        self.proofs._waiting += 1

    def __exit__(self, *_: object) -> None:
        self.proofs._waiting -= 1


def _size_bytes(folder: Path) -> int:
    return sum(it.stat().st_size for it in folder.iterdir() if it.is_file())


def _rescaled(circuit: Circuit, numbers: list[int]) -> list[Value]:
    """The input as ezkl reads it: floats that are whole numbers of the circuit's steps."""
    found: list[Value] = []
    at = 0
    for value in circuit.inputs:
        some = numbers[at : at + value.size]
        at += value.size
        found.append([it / 2.0**value.scale_bits for it in some])
    return found


@asynccontextmanager
async def open_proofs(
    state: Path, srs: Path | None, *, proves: bool = True, sweeps: bool = True
) -> AsyncIterator[EzklProofs | None]:
    """Proofs for as long as the block runs; None without an SRS.

    Circuits are kept in a folder of `state`. With `sweeps` what an earlier run left half made is
    removed: not where the peer of that state may be at work.
    InputError says what is wrong with the SRS.
    """
    if srs is None:
        yield None
        return
    read = await trio.to_thread.run_sync(read_srs, srs)
    folder = state.absolute() / CIRCUITS
    await trio.to_thread.run_sync(_prepared, folder, sweeps)
    async with trio.open_nursery() as nursery:
        yield EzklProofs(folder, read, nursery, proves)
        nursery.cancel_scope.cancel()


def _prepared(folder: Path, sweeps: bool) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    for left in folder.glob("work-*") if sweeps else ():
        shutil.rmtree(left, ignore_errors=True)
