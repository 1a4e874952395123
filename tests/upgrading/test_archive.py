"""What a file that is called a release may hold, before anything of it is unpacked."""

import stat
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from node.upgrading import archive
from node.upgrading.archive import FILES_MAX, LIST_BYTES_MAX, opened, read_bounded
from node.upgrading.installing import extras_of, lock_of
from node.upgrading.locked import LOCK
from wire.errors import InputError

SOUND = {LOCK: "lone==1.0\n", "node/__init__.py": "", "baton-0.2.0.dist-info/METADATA": "Name: b\n"}


def packed(folder: Path, files: Mapping[str, str | bytes], mode: int = 0) -> Path:
    """A wheel of these files, of which the last is of a kind."""
    wheel = folder / "baton-0.2.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in {**SOUND, **files}.items():
            row = zipfile.ZipInfo(name)
            row.compress_type = zipfile.ZIP_DEFLATED
            if name in files:
                row.external_attr = mode << 16
            out.writestr(row, data)
    return wheel


def looked_at(wheel: Path) -> str:
    """Why a wheel is refused; "" if it is not."""
    try:
        with opened(wheel) as files:
            read_bounded(files, LOCK, 1000)
    except InputError as error:
        return str(error)
    return ""


def test_a_release_may_be_unpacked(tmp_path: Path) -> None:
    folders = {"node/": "", "node/a/": "", "node/a/b.py": "x"}
    assert looked_at(packed(tmp_path, folders)) == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.py", "leads elsewhere"),
        ("node/../../evil.py", "leads elsewhere"),
        ("/etc/evil", "leads elsewhere"),
        ("node//evil.py", "leads elsewhere"),
        ("./evil.py", "leads elsewhere"),
        ("C:/evil.py", "leads elsewhere"),
        ("node\\evil.py", "leads elsewhere"),
        ("node/\x1b[2Jevil.py", "leads elsewhere"),
        ("node/\u202eyp.live", "leads elsewhere"),
        ("x" * 10_000, "too long"),
        ("x" * 300, "leads elsewhere"),
        ("d/" * 40 + "deep.py", "too deep"),
        ("node/__INIT__.py", "twice"),
        ("node/__init__.py/inside.py", "which is one"),
    ],
)
def test_names_that_no_release_has_are_refused(tmp_path: Path, name: str, why: str) -> None:
    said = looked_at(packed(tmp_path, {name: "x"}))
    assert "is no release of Baton" in said
    assert why in said
    # It is shown to a person as it is, without what a terminal would act on.
    assert said.isprintable()
    assert len(said) < 300


def test_a_name_with_a_zero_byte_is_not_taken_for_what_stands_before_it(tmp_path: Path) -> None:
    wheel = packed(tmp_path, {"node/a.py#evil.py": "x"})
    wheel.write_bytes(wheel.read_bytes().replace(b"a.py#evil", b"a.py\0evil"))
    assert "leads elsewhere" in looked_at(wheel)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    assert "a link or a device" in looked_at(packed(tmp_path, {"node/x": "/etc"}, kind | 0o777))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    wheel = packed(tmp_path, {})
    with zipfile.ZipFile(wheel, "a") as out:
        out.writestr(LOCK, "other==1.0\n")
    assert "twice" in looked_at(wheel)


def test_a_file_that_is_called_otherwise_where_it_lies_is_refused(tmp_path: Path) -> None:
    wheel = packed(tmp_path, {"node/harmless.py": "x"})
    data = wheel.read_bytes()
    wheel.write_bytes(data.replace(b"node/harmless.py", b"../../harmful.py", 1))
    assert "cut or altered" in looked_at(wheel)


def of_size(row: bytes, count: int) -> Callable[[bytes], bytes]:
    """Alters an archive so that its list is one row, so many times."""

    def altered(data: bytes) -> bytes:
        end = data[-22:]
        begins = struct.unpack("<I", end[16:20])[0]
        sizes = struct.pack("<HHI", count & 0xFFFF, count & 0xFFFF, count * len(row))
        return data[:begins] + row * count + end[:8] + sizes + end[16:]

    return altered


@pytest.mark.parametrize("count", [FILES_MAX + 1, 1_000_000])
def test_of_a_million_names_none_is_read(tmp_path: Path, count: int) -> None:
    wheel = packed(tmp_path, {})
    data = wheel.read_bytes()
    row = data[data.index(b"PK\x01\x02") :][: 46 + len(LOCK)]
    wheel.write_bytes(of_size(row, count)(data))
    began_s = time.thread_time()
    tracemalloc.start()
    said = looked_at(wheel)
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "files" in said
    assert "is no release of Baton" in said
    assert most_bytes < 32 << 20
    assert time.thread_time() - began_s < 5
    assert count * len(row) < LIST_BYTES_MAX or most_bytes < 1 << 20


def test_files_that_unpack_to_more_than_a_release_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "WHOLE_BYTES_MAX", 1 << 20)
    assert "come to 2,0" in looked_at(packed(tmp_path, {"node/a": b" " * 2_000_000}))
    monkeypatch.setattr(archive, "WHEEL_BYTES_MAX", 1000)
    assert "it has" in looked_at(packed(tmp_path, {"node/a": Random(1).randbytes(2000)}))


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_packed_to_fill_memory_is_not_unpacked(tmp_path: Path, way: int) -> None:
    wheel = tmp_path / "baton-0.2.0-py3-none-any.whl"
    whole_bytes = 40 << 20
    with zipfile.ZipFile(wheel, "w") as out:
        for name in SOUND:
            out.writestr(name, b" " * (whole_bytes if name == LOCK else 9), compress_type=way)
    # The list says that it is little.
    wheel.write_bytes(
        wheel.read_bytes().replace(struct.pack("<I", whole_bytes), struct.pack("<I", 10))
    )
    tracemalloc.start()
    said = looked_at(wheel)
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "packed as none of ours is" in said
    assert most_bytes < 32 << 20


@pytest.mark.parametrize("said_bytes", [10, 5_000])
def test_a_file_that_is_not_as_long_as_the_list_says_is_refused(
    tmp_path: Path, said_bytes: int
) -> None:
    wheel = packed(tmp_path, {"node/a": " " * 3_000})
    told, whole = struct.pack("<I", said_bytes), struct.pack("<I", 3_000)
    wheel.write_bytes(wheel.read_bytes().replace(whole, told))
    assert "cut or altered" in looked_at(wheel)


def test_an_archive_with_a_second_list_is_refused(tmp_path: Path) -> None:
    """Its end names the place of the one, and stands behind the other."""
    data = packed(tmp_path, {"node/a.py": "x"}).read_bytes()
    begins = data.index(b"PK\x01\x02")
    wheel = packed(tmp_path, {"node/b.py": "x"})
    other = wheel.read_bytes()
    wheel.write_bytes(data[:begins] + data[begins:-22] + other)
    with zipfile.ZipFile(wheel) as files:
        assert "node/b.py" in files.namelist()
    assert "cut or altered" in looked_at(wheel)


def test_what_is_read_of_it_is_bounded(tmp_path: Path) -> None:
    for name, read in ((LOCK, lock_of), ("baton-0.2.0.dist-info/METADATA", extras_list)):
        with pytest.raises(InputError, match="cut or altered"):
            read(packed(tmp_path, {name: b" " * (8 << 20)}))


def extras_list(wheel: Path) -> tuple[str, ...]:
    return extras_of(wheel, ())


def test_no_bytes_are_a_crash(tmp_path: Path) -> None:
    random = Random(7)
    wheel = packed(tmp_path, {"node/a.py": "x" * 500})
    data = wheel.read_bytes()
    for _ in range(400):
        altered = bytearray(data)
        for _ in range(random.randrange(1, 4)):
            altered[random.randrange(len(data))] = random.randrange(256)
        wheel.write_bytes(altered[: random.choice((len(data), random.randrange(len(data))))])
        for read in (lock_of, extras_list):
            try:
                read(wheel)
            except InputError:
                continue
