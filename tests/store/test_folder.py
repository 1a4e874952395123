"""The state folder: ours alone, of a version we read, used by one peer at a time."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from store import key_seed, open_folder, open_store
from store.folder import SEED_BYTES, locked_by
from wire.errors import StoreUnusable

NOBODY = 65534
ROOT = Path(__file__).parents[2]
SEED = bytes(range(32))

HOLDER = """
import sys
from pathlib import Path
from store import open_folder
with open_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_nobody(work: Callable[[], None]) -> None:
    """Run `work` in a process of a user who may do little; it must end without an error."""
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_new_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    with open_folder(folder) as opened:
        assert opened == folder
        assert key_seed(folder, lambda: SEED) == SEED
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "key") == 0o600
    assert (folder / "version").read_text() == "baton state 1\n"
    assert sorted(path.name for path in folder.iterdir()) == ["key", "lock", "version"]


async def test_the_database_is_for_its_owner_only(tmp_path: Path) -> None:
    async with open_store(tmp_path, quota_bytes=1 << 20):
        pass
    assert mode_of(tmp_path / "store" / "data.mdb") == 0o600


def test_a_folder_can_be_opened_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        with open_folder(tmp_path):
            pass


def test_a_folder_of_another_version_is_refused_naming_both(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("baton state 2\n")
    with (
        pytest.raises(StoreUnusable, match=r"'baton state 2'.*'baton state 1'.*another state"),
        open_folder(tmp_path),
    ):
        pytest.fail("opened")
    assert (tmp_path / "version").read_text() == "baton state 2\n"


def test_a_folder_in_use_is_refused_naming_the_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StoreUnusable, match=rf"\(process {holder.pid}\).*of its own"),
            open_folder(tmp_path),
        ):
            pytest.fail("opened")
        # The lock goes with the process, however it ends.
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with open_folder(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_whose_folder_it_is_the_system_says_and_not_what_the_file_names(tmp_path: Path) -> None:
    with open_folder(tmp_path):
        # As in the moment between the lock and the number, or as somebody wrote it there.
        (tmp_path / "lock").write_text("1\n")
        assert locked_by(tmp_path) == os.getpid()
    assert locked_by(tmp_path) == 0


async def test_two_stores_in_one_folder_are_refused(tmp_path: Path) -> None:
    async with open_store(tmp_path, quota_bytes=1 << 20):
        with pytest.raises(StoreUnusable, match="in use by another running peer"):
            async with open_store(tmp_path, quota_bytes=1 << 20):
                pytest.fail("opened")


def test_a_folder_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(StoreUnusable, match="chmod 700"), open_folder(tmp_path):
        pytest.fail("opened")


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match="File exists"), open_folder(tmp_path / "file"):
        pytest.fail("opened")


def test_a_link_to_a_folder_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    with (
        pytest.raises(StoreUnusable, match="disk, which is not there") as refused,
        open_folder(tmp_path / "state"),
    ):
        pytest.fail("opened")
    assert "mount" in refused.value.todo
    assert not (tmp_path / "disk").exists()


def test_a_folder_that_may_not_be_written_is_refused() -> None:
    def refused() -> None:
        for path in (folder, folder / "new"):
            with (
                pytest.raises(StoreUnusable, match=r"Permission denied.*a folder of yours"),
                open_folder(path),
            ):
                pytest.fail("opened")

    # Not pytest's own folder: others cannot even enter that.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        as_nobody(refused)


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    assert key_seed(tmp_path, lambda: SEED) == SEED
    assert key_seed(tmp_path, lambda: pytest.fail("a second key")) == SEED


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key_seed(tmp_path, lambda: SEED)
    for mode in (0o640, 0o604, 0o622):
        (tmp_path / "key").chmod(mode)
        with pytest.raises(StoreUnusable, match=rf"mode {mode:04o}.*chmod 600"):
            key_seed(tmp_path, lambda: SEED)
    (tmp_path / "key").chmod(0o400)
    assert key_seed(tmp_path, lambda: SEED) == SEED


@pytest.mark.parametrize("left", ["started.json", "port"])
def test_no_second_key_is_made_where_a_peer_has_lost_its_own(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("1")
    with pytest.raises(StoreUnusable, match=r"key is gone.*from a copy.*mv .*\.old") as refused:
        key_seed(tmp_path, lambda: SEED)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("size_bytes", [0, SEED_BYTES - 1, SEED_BYTES + 1])
def test_a_key_of_the_wrong_length_is_refused_and_not_replaced(
    tmp_path: Path, size_bytes: int
) -> None:
    (tmp_path / "key").write_bytes(bytes(size_bytes))
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(StoreUnusable, match=f"has {size_bytes}"):
        key_seed(tmp_path, lambda: SEED)
    assert (tmp_path / "key").read_bytes() == bytes(size_bytes)


def test_the_first_of_two_who_make_a_key_wins(tmp_path: Path) -> None:
    def slow() -> bytes:
        # Somebody else makes one between our look and our write.
        key_seed(tmp_path, lambda: SEED)
        return bytes(32)

    assert key_seed(tmp_path, slow) == SEED
    assert key_seed(tmp_path, lambda: bytes(32)) == SEED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"]


@pytest.mark.parametrize("name", ["key", "version"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang_the_start(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name, 0o600)
    with pytest.raises(StoreUnusable, match="plain file"), open_folder(tmp_path):
        key_seed(tmp_path, lambda: SEED)


def test_a_device_in_the_place_of_the_key_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to("/dev/zero")
    with pytest.raises(StoreUnusable, match="plain file"):
        key_seed(tmp_path, lambda: SEED)


def test_a_large_file_in_the_place_of_the_key_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "key").open("wb") as key:
        key.truncate(1 << 40)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(StoreUnusable, match="32 bytes and has 64 or more"):
        key_seed(tmp_path, lambda: SEED)


def test_a_link_in_the_place_of_the_lock_overwrites_nothing(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.write_text("worth keeping")
    state = tmp_path / "state"
    state.mkdir(0o700)
    (state / "lock").symlink_to(treasure)
    with pytest.raises(StoreUnusable, match="is a link"), open_folder(state):
        pytest.fail("opened")
    assert treasure.read_text() == "worth keeping"


def test_a_key_may_be_a_link_and_is_judged_by_what_it_names(tmp_path: Path) -> None:
    state, secret = tmp_path / "state", tmp_path / "secret"
    state.mkdir(0o700)
    secret.write_bytes(SEED)
    secret.chmod(0o644)
    (state / "key").symlink_to(secret)
    with pytest.raises(StoreUnusable, match="mode 0644"):
        key_seed(state, lambda: SEED)
    secret.chmod(0o600)
    assert key_seed(state, lambda: SEED) == SEED


@pytest.mark.parametrize("name", ["", "key", "version"])
def test_what_another_user_owns_is_refused(tmp_path: Path, name: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may give a file away")
    with open_folder(tmp_path):
        key_seed(tmp_path, lambda: SEED)
    os.chown(tmp_path / name, NOBODY, NOBODY)
    with (
        pytest.raises(StoreUnusable, match=rf"belongs to another user \(number {NOBODY}\)"),
        open_folder(tmp_path),
    ):
        key_seed(tmp_path, lambda: SEED)


def test_a_folder_that_everybody_can_replace_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "shared"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(StoreUnusable, match="everybody may write to"), open_folder(above / "state"):
        pytest.fail("opened")
    # As /tmp is: everybody may write there, and remove only what is his own.
    above.chmod(0o1777)
    with open_folder(above / "state"):
        pass
    # A link does not hide where the folder really is.
    above.chmod(0o777)
    (tmp_path / "link").symlink_to(above / "state")
    with (
        pytest.raises(StoreUnusable, match="everybody may write to"),
        open_folder(tmp_path / "link"),
    ):
        pytest.fail("opened")
