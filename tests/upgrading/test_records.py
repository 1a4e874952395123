"""What an upgrade keeps in files, and what it makes of files that are not its own."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from node.commands.service import Service, with_python
from node.upgrading.installing import (
    environment,
    extras_of,
    installed,
    libraries_of,
    wheel_in,
)
from node.upgrading.journal import (
    FILE,
    UpgradeJournal,
    cut_words,
    end_journal,
    keep_journal,
    read_journal,
    upgrading_alone,
    versions_folder,
)
from node.upgrading.locked import LOCK, versions_in
from node.upgrading.started import FILE as STARTED
from node.upgrading.started import Started, keep_started, read_started, without_invites
from node.upgrading.steps import UpgradeStep
from wire.errors import BatonError, InputError, StoreUnusable

OLD = Started(
    version="0.1.0",
    prefix="/opt/baton",
    packages="/opt/baton/lib",
    arguments=("join", "--role", "store"),
    folder="/",
    process=7,
)
JOURNAL = UpgradeJournal(
    step=UpgradeStep.STARTING, old=OLD, version="0.2.0", wheel="w", models=("minilm",)
)
BAD = [b"", b"{", b"[]", b"null", b'{"version": 1}', b"[" * 100_000, b"\xff", b'{"old": 1}']


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    versions = versions_folder(state)
    assert read_started(state) is None
    assert read_journal(versions) is None
    assert cut_words(state) == ""
    with upgrading_alone(versions):
        keep_started(state, OLD)
        keep_journal(versions, JOURNAL)
        assert read_started(state) == OLD
        assert read_journal(versions) == JOURNAL
        # It is under way, and was not cut.
        assert cut_words(state) == ""
        with pytest.raises(InputError, match="another upgrade"), upgrading_alone(versions):
            pass
    assert "to 0.2.0 was cut while starting" in cut_words(state)
    end_journal(versions)
    assert cut_words(state) == ""


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_record_is_refused_in_words(tmp_path: Path, data: bytes) -> None:
    state = tmp_path / "state"
    versions = versions_folder(state)
    for folder, name in ((state, STARTED), (versions, FILE)):
        folder.mkdir(mode=0o755)
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    with pytest.raises(StoreUnusable, match="does not say"):
        read_started(state)
    with pytest.raises(StoreUnusable, match="no journal"):
        read_journal(versions)
    assert "no journal" in cut_words(state)


def test_what_others_may_write_is_not_run(tmp_path: Path) -> None:
    keep_started(tmp_path, OLD)
    (tmp_path / STARTED).chmod(0o666)
    with pytest.raises(StoreUnusable, match="others may use it"):
        read_started(tmp_path)


@pytest.mark.parametrize("version", ["../x", "1/2", "", "x1", "1" * 99])
def test_a_version_that_would_be_another_folder_is_no_version(tmp_path: Path, version: str) -> None:
    keep_started(tmp_path, OLD)
    told = json.loads((tmp_path / STARTED).read_text()) | {"version": version}
    (tmp_path / STARTED).write_text(json.dumps(told))
    with pytest.raises(BatonError):
        read_started(tmp_path)
    wheel = tmp_path / f"baton-{version.replace('/', '-')}-py3-none-any.zip"
    wheel.touch()
    with pytest.raises(InputError):
        wheel_in(wheel)


def test_an_invite_is_not_kept() -> None:
    assert without_invites(("join", "baton1abc", "BATON1ABC", "--debug", "--port", "1")) == (
        "join",
        "--port",
        "1",
    )


def test_a_wheel_is_named_or_the_only_one_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        wheel_in(tmp_path / "gone")
    with pytest.raises(InputError, match="0 wheels"):
        wheel_in(tmp_path)
    wheel = tmp_path / "baton-0.2.0-py3-none-any.whl"
    wheel.touch()
    assert wheel_in(tmp_path) == wheel_in(wheel) == (wheel, "0.2.0")
    (tmp_path / "baton-0.3.0-py3-none-any.whl").touch()
    with pytest.raises(InputError, match="2 wheels"):
        wheel_in(tmp_path)


@pytest.mark.parametrize("data", [None, *BAD])
def test_an_environment_that_was_cut_is_not_installed(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "baton-version.json").write_bytes(data)
    assert installed(tmp_path) is None


def test_a_unit_is_changed_in_its_python_alone_and_back() -> None:
    old, new = Path("/opt/a b"), Path("/var/lib/baton-versions/0.2.0")
    unit = Service(for_user=False).unit(("--files", "/opt/a b/bin/python"), old)
    changed = with_python(unit, old, new)
    assert changed is not None
    assert changed == Service(for_user=False).unit(("--files", "/opt/a b/bin/python"), new)
    # Also one that was changed before this was cut.
    assert with_python(changed, old, new) == changed
    assert with_python(changed, new, old) == unit
    assert with_python("[Service]\nExecStart=/bin/true\n", old, new) is None


METADATA = """Metadata-Version: 2.4
Name: baton
Version: 0.2.0
Requires-Dist: libp2p==0.8.1
Provides-Extra: qr
Requires-Dist: segno<2,>=1.6; extra == "qr"
Provides-Extra: sql
Requires-Dist: psycopg_binary>=3; python_version > "3" and extra == 'sql'
Requires-Dist: pyarrow>=21; extra == "sql"
"""


LIBRARIES = r"""# This file was autogenerated by uv via the following command:
fastecdsa==4.0.0 ; os_name != 'nt' \
    --hash=sha256:01 \
    --hash=sha256:0101
    # via
    #   --override .ci/overrides.txt
    #   libp2p
libp2p==0.8.1 \
    --hash=sha256:02
    # via baton (pyproject.toml)
segno==1.6.1 \
    --hash=sha256:03
    # via baton (pyproject.toml)
"""
BASE = r"""fastecdsa==4.0.0 ; os_name != 'nt' \
    --hash=sha256:01 \
    --hash=sha256:0101
libp2p==0.8.1 \
    --hash=sha256:02
"""


def test_extras_and_libraries_are_read_from_the_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "baton-0.2.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("baton-0.2.0.dist-info/METADATA", METADATA)
    assert extras_of(wheel, ("Segno", "pyarrow")) == ("qr",)
    assert extras_of(wheel, ("Psycopg.Binary", "pyarrow")) == ("sql",)
    assert extras_of(wheel, ()) == ()
    with pytest.raises(InputError, match="does not say which libraries"):
        libraries_of(wheel, ())
    with zipfile.ZipFile(wheel, "a") as files:
        files.writestr(LOCK, LIBRARIES)
    assert libraries_of(wheel, ()) == BASE
    assert libraries_of(wheel, ("qr",)) == BASE + "segno==1.6.1 \\\n    --hash=sha256:03\n"
    assert versions_in(BASE) == "fastecdsa==4.0.0 ; os_name != 'nt'\nlibp2p==0.8.1\n"
    wheel.write_bytes(wheel.read_bytes()[:-30])
    for read in (libraries_of, extras_of):
        with pytest.raises(InputError, match="is no wheel"):
            read(wheel, ())


def test_others_settings_say_where_libraries_come_from_and_nothing_more() -> None:
    heard = {"PIP_INDEX_URL": "a", "UV_DEFAULT_INDEX": "b", "PIP_CERT": "c", "HOME": "d"}
    more = {"PIP_REQUIREMENT": "e", "UV_OVERRIDE": "f", "PIP_TARGET": "g", "PYTHONPATH": "h"}
    assert environment(heard | more) == heard


def test_what_installs_keeps_other_upgrades_out_after_a_kill(tmp_path: Path) -> None:
    versions = versions_folder(tmp_path / "state")
    with upgrading_alone(versions) as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,))
    # Who began it is gone, and it still writes.
    with pytest.raises(InputError, match="still installs"), upgrading_alone(versions):
        pass
    child.communicate()
    with upgrading_alone(versions):
        pass
