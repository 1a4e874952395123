"""A model that lies in several GGUF files: finds its parts, checks them, makes one file of them.

Large models are passed on in parts, NAME-00001-of-00003.gguf and so on; the first has the metadata.
The file that is made depends on the parts alone, so that the same parts are the same model.
"""

import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from node.engines.formats.gguf_file import MAGIC, GgufPart, GgufTensor, alignment_of, read_part
from wire.errors import ModelRefused

PARTS_MAX = 1024
_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_VERSION = 3
_COPY_BYTES = 1 << 20
# These say which part a file is, and nothing of the model.
_ABOUT_PARTS = ("split.no", "split.count", "split.tensors.count")
# Called with the bytes written so far, and the bytes in all.
Progress = Callable[[int, int], None]


def is_part(path: Path) -> bool:
    """Whether a file's name says that it is one of several parts."""
    found = _NAME.fullmatch(path.name)
    return found is not None and int(found[3]) > 1


def whole_name(path: Path) -> str:
    """What the model is called of which this is a part."""
    found = _NAME.fullmatch(path.name)
    assert found is not None, "only a part has such a name"
    return found[1]


def read_parts(first: Path) -> list[GgufPart]:
    """All parts of a model, whose first part this is; ModelRefused says what is wrong."""
    named = _NAME.fullmatch(first.name)
    assert named is not None, "only a part has such a name"
    count = int(named[3])
    if int(named[2]) != 1:
        raise ModelRefused(
            f"{first.name} is part {int(named[2])} of {count} of a model",
            todo=f"name its first part, and all are taken: {_sibling(first, 1).name}",
        )
    if count > PARTS_MAX:
        raise ModelRefused(f"{first.name}: {count} parts, at most {PARTS_MAX} are read")
    paths = [_sibling(first, number) for number in range(1, count + 1)]
    if missing := [it.name for it in paths if not it.is_file()]:
        raise ModelRefused(
            f"of the {count} parts of the model {len(missing)} are not here: {missing[0]}",
            todo="put all parts into one folder",
        )
    parts = [read_part(it) for it in paths]
    names: set[str] = set()
    for number, part in enumerate(parts):
        said = part.file.metadata.get("split.no"), part.file.metadata.get("split.count")
        if said != (number, count):
            raise ModelRefused(
                f"{part.file.path.name} says that it is another part, {said[0]} of {said[1]}",
                todo="download the parts again, under their own names",
            )
        if twice := names & part.file.tensors.keys():
            raise ModelRefused(f"{part.file.path.name}: {min(twice)[:80]} is in two parts")
        names |= part.file.tensors.keys()
    wanted = parts[0].file.metadata.get("split.tensors.count", len(names))
    if wanted != len(names):
        raise ModelRefused(
            f"the parts of {first.name} have {len(names)} tensors, and {wanted} belong to it",
            todo="download the parts again",
        )
    return parts


def _sibling(first: Path, number: int) -> Path:
    named = _NAME.fullmatch(first.name)
    assert named is not None, "only a part has such a name"
    return first.with_name(f"{named[1]}-{number:05}-of-{named[3]}{first.suffix}")


def join(parts: Sequence[GgufPart], target: Path, progress: Progress) -> None:
    """Write the whole model into a new file; OSError."""
    first = parts[0]
    alignment = alignment_of(first.file.path, first.file.metadata)
    keys = [place for name, place in first.keys.items() if name not in _ABOUT_PARTS]
    tensors = [(name, it) for part in parts for name, it in part.file.tensors.items()]
    size_bytes = sum(it.end - it.begin for _, it in tensors)
    with target.open("xb") as out:
        out.write(MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(keys)))
        with first.file.path.open("rb") as source:
            for begin, end in keys:
                _copy(source, begin, end, out)
        at = 0
        for name, tensor in tensors:
            out.write(_row(name, tensor, at))
            at += _padded(tensor.end - tensor.begin, alignment)
        done_bytes = 0
        for part in parts:
            with part.file.path.open("rb") as source:
                for tensor in part.file.tensors.values():
                    out.write(bytes(-out.tell() % alignment))
                    _copy(source, tensor.begin, tensor.end, out)
                    done_bytes += tensor.end - tensor.begin
                    progress(done_bytes, size_bytes)


def _row(name: str, tensor: GgufTensor, offset: int) -> bytes:
    called = name.encode()
    shape = tensor.shape[::-1]
    head = struct.pack("<Q", len(called)) + called + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}QIQ", *shape, tensor.kind, offset)


def _padded(size_bytes: int, alignment: int) -> int:
    return -(-size_bytes // alignment) * alignment


def _copy(source: IO[bytes], begin: int, end: int, out: IO[bytes]) -> None:
    source.seek(begin)
    left = end - begin
    while left:
        data = source.read(min(left, _COPY_BYTES))
        if not data:
            raise OSError("a part became shorter while it was read")
        out.write(data)
        left -= len(data)
