"""A state folder is brought forward with the old one kept, whenever the process is killed."""

import shutil
from pathlib import Path

import pytest

from store import migrating
from store.folder import folder_version, open_folder
from store.migrating import bring_forward, can_reach, kept_at, put_back, version_in
from wire.errors import StoreUnusable


class Killed(BaseException):
    """The process ends here."""


def folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    for name, text in (("version", "baton state 1\n"), ("key", "secret"), ("store", "old")):
        (path / name).write_text(text)
        (path / name).chmod(0o600)
    (path / "lock").touch()
    return path


def step_of(number: int, dies: list[int]) -> migrating.Migration:
    def step(path: Path) -> None:
        (path / "store").write_text(f"half {number}")
        if number in dies:
            dies.remove(number)
            raise Killed
        (path / "store").write_text(f"new {number}")

    return step


@pytest.mark.parametrize("dies", [[], [1], [2], [1, 2]])
def test_cut_in_a_step_it_goes_on_and_the_old_one_is_kept_whole(
    tmp_path: Path, dies: list[int]
) -> None:
    state = folder(tmp_path / "state")
    steps = {it: step_of(it, dies) for it in (1, 2)}
    for _ in range(len(dies)):
        with pytest.raises(Killed):
            bring_forward(state, state / "version", 3, steps)
        assert folder_version(state) == (1, True)
    bring_forward(state, state / "version", 3, steps)
    assert folder_version(state) == (3, False)
    assert (state / "store").read_text() == "new 2"
    kept = kept_at(state, 1)
    assert (kept / "store").read_text() == "old"
    assert (kept / "key").stat().st_mode & 0o077 == 0
    assert not (kept / "lock").exists()
    put_back(state, 1)
    assert (state / "store").read_text() == "old"
    assert folder_version(state) == (1, False)
    # What the newer one wrote is not lost, and nothing happens twice.
    assert (tmp_path / "state.newer" / "store").read_text() == "new 2"
    put_back(state, 1)
    assert (state / "store").read_text() == "old"


@pytest.mark.parametrize("cut_before", [1, 2, 3])
def test_cut_between_its_renames_putting_back_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_before: int
) -> None:
    state = folder(tmp_path / "state")
    bring_forward(state, state / "version", 2, {1: step_of(1, [])})
    renames = 0

    def rename(path: Path, to: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == cut_before:
            raise Killed
        path.replace(to)
        return to

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Killed):
        put_back(state, 1)
    put_back(state, 1)
    assert (state / "store").read_text() == "old"
    assert (tmp_path / "state.newer" / "store").read_text() == "new 1"


def planted(path: Path) -> None:
    path.mkdir()
    (path / "version").write_text("baton state 1\n")
    (path / "key").write_text("another's")


@pytest.mark.parametrize("cut", [False, True])
def test_a_folder_that_lies_where_the_old_one_goes_is_never_taken_for_it(
    tmp_path: Path, cut: bool
) -> None:
    state = folder(tmp_path / "state")
    bring_forward(state, state / "version", 2, {1: step_of(1, [])})
    planted(tmp_path / "state.v1")
    put_back(state, 1)
    assert (state / "key").read_text() == "secret"
    assert (tmp_path / "state.v1.other" / "key").read_text() == "another's"
    if cut:
        # It has all been done, and was cut before the journal said so.
        planted(tmp_path / "state.v1")
        put_back(state, 1)
        assert (state / "key").read_text() == "secret"


@pytest.mark.parametrize("planted_link", ["state.v1", "state.newer"])
def test_a_link_that_leads_nowhere_stops_no_return(tmp_path: Path, planted_link: str) -> None:
    state = folder(tmp_path / "state")
    bring_forward(state, state / "version", 2, {1: step_of(1, [])})
    (tmp_path / planted_link).symlink_to("nowhere")
    put_back(state, 1)
    assert (state / "store").read_text() == "old"


def test_where_nothing_but_the_folder_can_be_written_it_is_brought_forward(tmp_path: Path) -> None:
    """A service of systemd is in this place, and its folder is reached by a link."""
    (tmp_path / "private").mkdir()
    real = folder(tmp_path / "private" / "state")
    state = tmp_path / "state"
    state.symlink_to("private/state")
    for version in (2, 3):
        bring_forward(state, state / "version", version, {it: step_of(it, []) for it in (1, 2)})
    assert {it.name for it in tmp_path.rglob("state*")} == {"state"}
    assert {it.name for it in (real / "kept").iterdir()} == {"v1", "v2"}
    # A copy has no other copies in it.
    assert not (real / "kept" / "v2" / "kept").exists()
    put_back(state, 2)
    assert state.is_symlink()
    assert (state / "store").read_text() == "new 1"


def test_a_disk_without_room_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = folder(tmp_path / "state")

    def full(folder: Path, part: Path, **more: object) -> None:
        part.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        bring_forward(state, state / "version", 2, {1: step_of(1, [])})
    assert (state / "store").read_text() == "old"
    assert folder_version(state) == (1, False)
    assert not [*(state / "kept").iterdir()]


def test_a_folder_of_tomorrow_is_refused_with_a_way_out(tmp_path: Path) -> None:
    state = folder(tmp_path / "state")
    (state / "version").write_text("baton state 2\n")
    with pytest.raises(StoreUnusable, match="another state folder"), open_folder(state):
        pass
    kept_at(state, 1).mkdir(parents=True)
    with pytest.raises(StoreUnusable, match=r"a copy of .*state/kept/v1"), open_folder(state):
        pass


@pytest.mark.parametrize("text", ["", "baton state", "baton state -1", "baton state 1 to", "x"])
def test_what_names_no_version_is_none(text: str) -> None:
    assert version_in(text) is None


def test_there_has_to_be_a_step_for_each_version() -> None:
    steps = {1: step_of(1, []), 3: step_of(3, [])}
    assert can_reach(1, 2, steps)
    assert not can_reach(1, 4, steps)
    assert not can_reach(2, 2, {})
    assert not can_reach(3, 2, steps)
