"""What a person may type wrongly at a running peer: one line says what, why and what to do.

The same line comes with `--json`, with nothing on standard output; what was kept is still there.
"""

import time
from pathlib import Path

import pytest

from node.engines.formats.minilm import MINILM_ID
from node.engines.hash_engine import hash_manifest
from tests.live.command_line import Done, Peer, at_once, baton, numbers_in
from wire import limits
from wire.content import ContentId
from wire.unixfs import UnixfsId

NOWHERE = ContentId.of(b"content that nobody has")
FOLDER = UnixfsId.of_node(b"a folder that nobody has")
ASK = ("ask", "hash", "--json")
HELLO = ("--text", "hello")

# Name: what is typed, and the words that must be in the answer.
CASES: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "no such model": (("ask", "nonsense", *HELLO), ("'nonsense'", "hash, minilm")),
    "a model nobody runs": (("ask", "minilm", *HELLO), (str(MINILM_ID), "--role infer")),
    "no peer brings data": ((*ASK, "--source", "pydoc:try"), ("no other data peer", "--role data")),
    "an operation of no model": ((*ASK, *HELLO, "--operation", "fly"), ("'fly'", "embed")),
    "an index that is no id": ((*ASK, *HELLO, "--index", "x"), ("'x'", "baf")),
    "an index nobody has": ((*ASK, *HELLO, "--index", NOWHERE), (str(NOWHERE), "nobody")),
    "an index that is a model": (
        (*ASK, *HELLO, "--index", hash_manifest().id),
        (str(hash_manifest().id), "not an index", "ask --source"),
    ),
    "a search without an index": ((*ASK, *HELLO, "--operation", "nearest"), ("--index",)),
    "an empty text": ((*ASK, "--text", ""), ("empty", "--text")),
    "nothing asked": (ASK, ("--text, --file or --source",)),
    "two things asked": ((*ASK, *HELLO, "--source", "pydoc:try"), ("--text, --file or --source",)),
    "a file that is not there": ((*ASK, "--file", "/nowhere/x"), ("/nowhere/x", "No such file")),
    "a folder as a text": ((*ASK, "--file", "/"), ("Is a directory",)),
    "more verdicts than verifiers": ((*ASK, *HELLO, "--verdicts", "3/2"), ("3 of 2", "2/3")),
    "verifiers without verdicts": ((*ASK, *HELLO, "--verdicts", "0/3"), ("0 of 3", "0/0")),
    "verdicts beyond the limit": ((*ASK, *HELLO, "--verdicts", "20/20"), ("20 of 20",)),
    "verdicts that are none": ((*ASK, *HELLO, "--verdicts", "x"), ("'x'", "2/3")),
    "no time at all": ((*ASK, *HELLO, "--deadline", "0"), ("--deadline", "86400")),
    "less than no time": ((*ASK, *HELLO, "--deadline", "-1"), ("--deadline", "86400")),
    "time without end": ((*ASK, *HELLO, "--deadline", "9999999"), ("--deadline", "86400")),
    "a deadline in words": ((*ASK, *HELLO, "--deadline", "soon"), ("--deadline", "'soon'")),
    "no passages": ((*ASK, *HELLO, "--count", "0"), ("--count", "32")),
    "too many passages": ((*ASK, *HELLO, "--count", "33"), ("--count", "32")),
    "too many tokens": ((*ASK, *HELLO, "--tokens", "5000"), ("--tokens", "4096")),
    "getting what is no id": (("get", "x", "--output", "o", "--json"), ("'x'", "baf")),
    "getting what nobody has": (("get", NOWHERE, "--output", "o"), (str(NOWHERE), "try again")),
    "getting in no time": (("get", NOWHERE, "--deadline", "-1"), ("--deadline",)),
    "getting JSON and content": (("get", NOWHERE, "--json"), ("--output",)),
    "putting what is not there": (("put", "/nowhere/x", "--json"), ("/nowhere/x",)),
    "putting a folder": (("put", "/", "--json"), ("is not a file",)),
    "copies of the disk": (("put", "/", "--copies", "2"), ("is not a file",)),
    "getting a large file that nobody has": (("get", FOLDER), (str(FOLDER), "try again")),
    "getting it as JSON": (("get", FOLDER, "--json"), ("--output",)),
    "exporting what nobody has": (("export", FOLDER, "x.car"), (str(FOLDER), "try again")),
    "exporting what is no id": (("export", "x", "x.car"), ("'x'", "baf")),
    "importing what is not there": (("import", "/nowhere/x"), ("/nowhere/x", "read")),
    "importing what is no archive": (("import", "/bin/sh"), ("/bin/sh", "archive")),
    "getting a folder nobody has": (
        ("get", FOLDER, "out"),
        (str(FOLDER), "nobody of", "try again"),
    ),
    "getting a file as a folder": (("get", NOWHERE, "o"), ("not the id of a folder", "--output")),
}
WITHOUT_PEER: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "looking without a peer": (("status", "--json"), ("no peer is running", "join")),
    "asking without a peer": ((*ASK, *HELLO), ("no peer is running", "join")),
    "getting without a peer": (("get", NOWHERE), ("no peer is running", "join")),
}
BARE: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "no such command": (("nonsense",), ("'nonsense'", "--help")),
    "no command": ((), ("--help",)),
    "no such option": (("ask", "hash", "--fly"), ("--fly", "--help")),
    "no such role": (("join", "--role", "fly"), ("'fly'", "data, infer, verify, store")),
    "a quota for nothing": (("join", "--quota", "1B"), ("1 bytes", "20GB")),
    "a quota in words": (("join", "--quota", "nonsense"), ("'nonsense'", "20GB")),
    "a port beyond all": (("join", "--port", "99999"), ("99999", "65535")),
    "files that are not there": (("join", "--files", "/nowhere/x"), ("/nowhere/x", "--files")),
    "a network without a name": (("join", "--network", ""), ("--network", "64")),
    "a receipt that is not there": (("verify", "/nowhere/x"), ("/nowhere/x", "receipts/")),
    "a receipt that is a folder": (("verify", "/"), ("Is a directory", "receipts/")),
}


@pytest.fixture(scope="module")
def outcomes(network: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """What every case came to; they are run some at a time, for a command takes half a second."""
    empty = tmp_path_factory.mktemp("empty")
    commands = {
        **{name: (*it, "--state", network["asker"].state) for name, (it, _) in CASES.items()},
        **{name: (*it, "--state", empty) for name, (it, _) in WITHOUT_PEER.items()},
        **{name: it for name, (it, _) in BARE.items()},
    }
    return dict(zip(commands, at_once(list(commands.values())), strict=True))


@pytest.mark.parametrize("name", [*CASES, *WITHOUT_PEER, *BARE])
def test_one_line_says_what_why_and_what_to_do(outcomes: dict[str, Done], name: str) -> None:
    typed, words = (CASES | WITHOUT_PEER | BARE)[name]
    line = outcomes[name].error
    assert all(word in line for word in words), line
    if "--json" in typed:
        assert outcomes[name].error_document["message"]
    else:
        assert outcomes[name].out == ""


def test_a_text_over_the_limit_is_refused_with_both_sizes(asker: Peer, tmp_path: Path) -> None:
    file = tmp_path / "long"
    # Far beyond what fits one message to the peer, too.
    file.write_bytes(b"a" * 5_000_000)
    assert {5_000_000, limits.TEXT_BYTES_MAX} <= numbers_in(asker.ask(*ASK, "--file", file).error)
    long = "a" * (limits.TEXT_BYTES_MAX + 1)
    sizes = numbers_in(asker.ask(*ASK, "--text", long).error)
    assert {limits.TEXT_BYTES_MAX + 1, limits.TEXT_BYTES_MAX} <= sizes


def test_text_that_is_not_utf_8_is_refused_with_the_byte(asker: Peer, tmp_path: Path) -> None:
    file = tmp_path / "latin"
    file.write_bytes(b"caf\xe9")
    line = asker.ask(*ASK, "--file", file).error
    assert "byte 3" in line
    assert "iconv" in line
    assert "byte 3" in asker.ask(*ASK, "--text", "caf\udce9").error


def test_content_that_cannot_be_written_is_still_kept(asker: Peer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 2000)
    content = asker.ask("put", file, "--json").document["id"]
    for place in ("/proc/x", tmp_path, tmp_path / "no" / "folder"):
        assert "cannot be written" in asker.ask("get", content, "--output", place).error
    copy = tmp_path / "copy"
    done = asker.ask("get", content, "--output", copy)
    assert (done.code, done.err) == (0, "")
    assert copy.read_bytes() == file.read_bytes()


def test_a_folder_goes_from_one_peer_to_another(
    network: dict[str, Peer], asker: Peer, tmp_path: Path
) -> None:
    folder, place = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("just this")
    (folder / "sub" / "large").write_bytes(bytes(range(256)) * 2000)
    done = asker.ask("put", folder)
    assert (done.code, done.err) == (0, "")
    kept, root = done.out.splitlines()
    assert kept.startswith("kept 2 files")
    assert root.startswith("bafy")
    found = network["verify"].ask("get", root, place)
    assert (found.code, found.err) == (0, "")
    assert (place / "a.txt").read_text() == "just this"
    assert (place / "sub" / "large").read_bytes() == (folder / "sub" / "large").read_bytes()
    assert "secret key" in asker.ask("put", asker.state).error
    (folder / "link").symlink_to(folder / "a.txt")
    assert str(folder / "link") in asker.ask("put", folder).error


def test_content_goes_to_standard_output_as_it_is(asker: Peer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("just this")
    content = asker.ask("put", file, "--json").document["id"]
    assert asker.ask("get", content) == Done(0, "just this", "")


def test_an_answer_that_too_few_could_check_is_not_begun(asker: Peer) -> None:
    began_at_s = time.monotonic()
    few = asker.ask("ask", "hash", *HELLO, "--fresh", "--verdicts", "3/3", "--deadline", "100")
    assert time.monotonic() - began_at_s < 60
    assert "2 peers could check an answer of hash" in few.error
    assert "--verdicts 2/2" in few.error
    assert "accepted" not in few.out
    for verdicts in ("2/2", "0/0"):
        done = asker.ask("ask", "hash", *HELLO, "--fresh", "--verdicts", verdicts)
        assert done.code == 0
        assert "waiting" not in done.out


def test_debug_shows_the_whole_traceback(asker: Peer) -> None:
    done = asker.ask("--debug", "ask", "nonsense", *HELLO)
    assert done.code == 1
    assert done.err.count("Traceback (most recent call last)") >= 1
    assert "there is no model 'nonsense'" in done.err


def test_after_all_this_the_peer_answers_as_before(outcomes: dict[str, Done], asker: Peer) -> None:
    found = asker.ask(*ASK, *HELLO, "--verdicts", "2/2").document
    assert found["verified"]
    assert len(found["verdicts"]) == 2
    assert baton("verify", found["receipt_file"], "--json").document["holds"]
    assert asker.process.poll() is None
