"""What an upgrade keeps in files, and what it makes of files that are not its own."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from node.commands.service import Service, with_python
from node.commands.upgrade import upgrade
from node.commands.upgrade_plan import UpgradeAsked
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


def test_what_is_set_for_pip_and_uv_is_not_heard() -> None:
    heard = {"HOME": "d", "HTTPS_PROXY": "a", "SSL_CERT_FILE": "b"}
    more = {"PIP_INDEX_URL": "e", "UV_OVERRIDE": "f", "PIP_CONFIG_FILE": "g", "PYTHONPATH": "h"}
    assert environment(heard | more) == heard | {"PIP_CONFIG_FILE": os.devnull}


@pytest.mark.parametrize("kind", ["a link", "a file", "of another"])
def test_versions_lie_in_a_folder_of_this_user_alone(tmp_path: Path, kind: str) -> None:
    versions, named = tmp_path / "state-versions", tmp_path / "named"
    named.mkdir(mode=0o700)
    if kind == "a link":
        versions.symlink_to(named)
    elif kind == "a file":
        versions.touch()
    elif os.geteuid() == 0:
        versions.mkdir(mode=0o700)
        os.chown(versions, 65534, 65534)
    else:
        pytest.skip("only root can give a folder away")
    words = "belongs to another user" if kind == "of another" else "where a folder should be"
    with pytest.raises(StoreUnusable, match=words), upgrading_alone(versions):
        pass
    if kind != "a file":
        with pytest.raises(StoreUnusable):
            read_journal(versions)
        assert versions.stat().st_mode & 0o777 == 0o700
        assert not [*versions.iterdir()]


def test_versions_that_cannot_be_made_are_refused_in_words() -> None:
    versions = Path("/proc/state-versions")
    with pytest.raises(InputError, match="cannot be made or used"), upgrading_alone(versions):
        pass


@pytest.mark.parametrize(
    "release", [None, "gone.whl", "cut.whl", "baton-0.2.0-py3-none-any.whl", "sound"]
)
async def test_nothing_is_made_for_what_cannot_be_upgraded(
    tmp_path: Path, release: str | None
) -> None:
    """Neither for a wheel that is none, nor where no peer runs."""
    wheel = tmp_path / (release or "")
    if release == "sound":
        wheel = tmp_path / "baton-0.2.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as files:
            files.writestr(LOCK, LIBRARIES)
    elif release and release != "gone.whl":
        wheel.write_bytes(b"PK")
    (tmp_path / "state").mkdir()
    before = {*tmp_path.iterdir()}
    asked = UpgradeAsked(
        state=tmp_path / "state",
        release=wheel if release else None,
        release_key=None,
        index="",
        offline=False,
        back=False,
    )
    with pytest.raises(InputError) as refused:
        await upgrade(asked, "python", {}, as_json=True)
    assert ("no peer runs" in str(refused.value)) == (release == "sound")
    assert {*tmp_path.iterdir()} == before


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
