"""A receipt with one thing changed in it does not hold, and `verify` says what fails."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.checking.audit import audit, begins_as_receipt
from node.checking.report import AuditReport, Status
from node.engines.hash_engine import hash_manifest
from store.car_file import open_car
from tests.live.command_line import Peer, at_once, baton
from wire.car import header_of, section_of
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import open_signed, sign
from wire.signing import SigningKey
from wire.task import Task
from wire.tree import Block

ASK = ("ask", "hash", "--json", "--fresh", "--verdicts", "2/2")


def nothing(_: object) -> None:
    """No content is at hand."""


@pytest.fixture(scope="module")
def kept(network: dict[str, Peer]) -> Path:
    """The receipt of a question that two verifiers checked."""
    asker = network["asker"]
    return Path(asker.ask(*ASK, "--text", "is this so?").document["receipt_file"])


@pytest.fixture(scope="module")
def other(network: dict[str, Peer]) -> Path:
    asker = network["asker"]
    return Path(asker.ask(*ASK, "--text", "is this too?").document["receipt_file"])


@pytest.fixture(scope="module")
def asker_key(network: dict[str, Peer]) -> SigningKey:
    """The key of who asked: with it a liar signs what it likes."""
    return SigningKey((network["asker"].state / "key").read_bytes())


def failing(report: AuditReport) -> list[str]:
    return [f"{it.what} {it.detail}" for it in report.points if it.status is Status.FAILS]


def test_a_receipt_altered_in_any_one_byte_does_not_hold(kept: Path) -> None:
    raw = kept.read_bytes()
    assert audit(raw, nothing).holds
    for place in range(len(raw)):
        for flip in (0x01, 0x80):
            altered = bytearray(raw)
            altered[place] ^= flip
            report = audit(bytes(altered), nothing)
            assert not report.holds, place
            assert failing(report), place


def test_a_receipt_cut_short_anywhere_does_not_hold(kept: Path) -> None:
    raw = kept.read_bytes()
    for size in range(len(raw)):
        assert failing(audit(raw[:size], nothing)), size
    assert failing(audit(raw + b"\0", nothing))


def test_a_damaged_receipt_is_told_from_another_file(kept: Path) -> None:
    raw = kept.read_bytes()
    for place in range(8):
        for flip in range(1, 256):
            assert begins_as_receipt(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :])
    assert all(begins_as_receipt(raw[:size]) for size in range(8))
    for other in (b"# Baton", b"{}  ", b"\x89PNG", bytes(8), b"GGUF"):
        assert not begins_as_receipt(other)


def test_verify_says_when_a_file_is_no_receipt(kept: Path, tmp_path: Path) -> None:
    receipt = kept.stem
    words = json.dumps({"id": receipt, "route": [], "verdicts": []})
    files = {
        "README.md": "# Baton",
        "words.json": words,
        "other.json": '{"name": "x"}',
        "deep.json": "[" * 100_000,
        "odd.json": words.replace(receipt, "$(reboot)"),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = at_once([("verify", tmp_path / name) for name in files])
    lines = dict(zip(files, (it.error for it in done), strict=True))
    assert all(f"{tmp_path / name} is not a receipt file" in lines[name] for name in files)
    assert all("not hold" not in line and "done again" not in line for line in lines.values())
    assert "curl -H 'accept: application/octet-stream'" in lines["words.json"]
    assert lines["words.json"].endswith(f"/v1/receipts/{receipt}")
    assert "reboot" not in lines["odd.json"]
    assert all("curl" not in lines[it] for it in ("README.md", "other.json", "deep.json"))


def test_another_kind_of_record_is_no_receipt(kept: Path) -> None:
    answer = open_signed(kept.read_bytes(), Answer).record
    for raw in (answer.task, *answer.receipts, *answer.verdicts):
        assert "can be read" in failing(audit(raw, nothing))[0]


Change = Callable[[Answer, Answer, SigningKey], Answer]


def of_another_output(answer: Answer, _: Answer, key: SigningKey) -> Answer:
    receipt = open_signed(answer.receipts[0], Receipt).record
    lie = sign(replace(receipt, output=open_signed(answer.task, Task).id), key)
    return replace(answer, receipts=(lie.raw,))


def of_a_newer_version(answer: Answer, _: Answer, key: SigningKey) -> Answer:
    task = open_signed(answer.task, Task).record
    return replace(answer, task=sign(replace(task, version=2), key).raw)


def with_a_verdict_of_its_own(answer: Answer, _: Answer, key: SigningKey) -> Answer:
    verdict = open_signed(answer.verdicts[0], Verdict).record
    return replace(answer, verdicts=(answer.verdicts[0], sign(verdict, key).raw))


# What an asker may change and sign anew, and what then fails.
LIES: dict[str, tuple[Change, str]] = {
    "a verdict left out": (lambda it, _, __: replace(it, verdicts=it.verdicts[:1]), "1 of 2"),
    "every verdict left out": (lambda it, _, __: replace(it, verdicts=()), "0 of 2"),
    "one verdict twice": (
        lambda it, _, __: replace(it, verdicts=(it.verdicts[0], it.verdicts[0])),
        "1 of 2",
    ),
    "verdicts on another answer": (
        lambda it, other, __: replace(it, verdicts=other.verdicts),
        "0 of 2",
    ),
    "other candidates": (
        lambda it, _, key: replace(it, candidates=(key.peer,)),
        "among the candidates",
    ),
    "no candidates": (lambda it, _, __: replace(it, candidates=()), "among the candidates"),
    "another secret": (lambda it, _, __: replace(it, secret=bytes(32)), "secret"),
    "another task": (lambda it, other, __: replace(it, task=other.task), "belong to the task"),
    "another answer's receipts": (
        lambda it, other, __: replace(it, receipts=other.receipts),
        "belong to the task",
    ),
    "an output nobody gave": (of_another_output, "0 of 2"),
    "a verdict of its own": (with_a_verdict_of_its_own, "verdict"),
    "a time long after": (
        lambda it, _, __: replace(it, answered_at_ms=it.answered_at_ms + 10**9),
        "deadline",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_what_the_asker_changes_and_signs_anew_fails_inside(
    kept: Path, other: Path, asker_key: SigningKey, name: str
) -> None:
    change, words = LIES[name]
    answer, another = (open_signed(it.read_bytes(), Answer).record for it in (kept, other))
    lie = sign(change(answer, another, asker_key), asker_key)
    found = failing(audit(lie.raw, nothing))
    assert found
    assert any(words in it for it in found), found


def test_an_answer_signed_by_somebody_else_is_said(kept: Path) -> None:
    answer = open_signed(kept.read_bytes(), Answer).record
    found = failing(audit(sign(answer, SigningKey(bytes(32))).raw, nothing))
    assert any("put together by the peer that asked" in it for it in found)


def test_verify_says_in_one_line_what_fails(
    kept: Path, tmp_path: Path, asker_key: SigningKey
) -> None:
    raw = kept.read_bytes()
    middle = len(raw) // 2
    answer = open_signed(raw, Answer).record
    newer = of_a_newer_version(answer, answer, asker_key)
    files: dict[str, tuple[bytes, str]] = {
        "altered": (raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :], "does not hold"),
        "short": (raw[:-1], "can be read"),
        "empty": (b"", "can be read"),
        "huge": (bytes(2 << 20), "larger than"),
        "task": (answer.task, "can be read"),
        "newer": (sign(newer, asker_key).raw, "version 2, this Baton reads 1"),
    }
    commands: list[tuple[Any, ...]] = []
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
        commands.append(("verify", tmp_path / name, "--json"))
    for (_, words), done in zip(files.values(), at_once(commands), strict=True):
        assert words in done.error
        assert ": " in done.error


def test_content_that_is_not_the_receipts_own_fails(kept: Path, tmp_path: Path) -> None:
    for name in (kept.name, kept.with_suffix(".input").name, kept.with_suffix(".output").name):
        shutil.copy(kept.parent / name, tmp_path / name)
    receipt = tmp_path / kept.name
    assert baton("verify", receipt, "--json").document["holds"]
    assert kept.with_suffix(".manifest").read_bytes() == hash_manifest().to_bytes()
    receipt.with_suffix(".output").write_bytes(b"another output")
    stranger = tmp_path / "stranger"
    stranger.write_bytes(b"not of this task")
    beside, given = at_once([("verify", receipt), ("verify", kept, "--content", stranger)])
    assert f"{kept.stem}.output is an input or an output" in beside.error
    assert "stranger is an input or an output" in given.error


def test_a_bundle_goes_from_a_peer_to_a_folder_and_is_checked_with_nothing_else(
    network: dict[str, Peer], kept: Path, state: Path, tmp_path: Path
) -> None:
    asker, bundle = network["asker"], tmp_path / "x.car"
    told = asker.ask("receipts", "export", kept.stem, "--output", bundle, "--json").document
    assert told["blobs"] == 2
    shown, checked, took = at_once(
        [
            ("receipts", "show", bundle, "--json"),
            ("verify", bundle, "--json"),
            ("receipts", "import", bundle, "--state", state, "--json"),
        ]
    )
    assert shown.document["receipt"] == kept.stem
    assert checked.document["holds"]
    assert not [it for it in checked.document["points"] if "not at hand" in it["detail"]]
    assert took.document["receipt"] == kept.stem
    # One after the other: each has the folder to itself.
    (row,) = baton("receipts", "--state", state, "--json").document["receipts"]
    assert row["imported"]
    assert row["model_name"] == "hash"
    assert "the receipt holds" in baton("verify", kept.stem, "--state", state).out


def test_archives_that_are_not_right_are_refused_in_one_line(
    network: dict[str, Peer], kept: Path, state: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "x.car"
    assert network["asker"].ask("receipts", "export", kept.stem, "--output", bundle).code == 0
    car = open_car(bundle)
    blocks = [Block(it, car.block(it)) for it in car.places]
    sections = [*map(section_of, blocks)]
    head = header_of(car.root)
    files = {
        "twice.car": (head + b"".join([*sections, sections[0]]), "is there twice"),
        "less.car": (head + b"".join(sections[:-1]), "is not whole"),
        "huge.car": (head + bytes.fromhex("80c8afa025"), "claims 10000000000 bytes"),
        "other.car": (kept.read_bytes(), "header"),
        "empty.car": (b"", "empty"),
    }
    commands: list[tuple[Any, ...]] = []
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
        commands.append(("verify", tmp_path / name))
        commands.append(("receipts", "import", tmp_path / name, "--state", state / name))
    done = at_once(commands)
    for place, (name, (_, words)) in enumerate(files.items()):
        assert words in done[2 * place].error, name
        assert words in done[2 * place + 1].error, name


def test_a_receipt_that_is_called_after_another_does_not_pass_for_it(
    kept: Path, other: Path, tmp_path: Path
) -> None:
    renamed, free = tmp_path / kept.name, tmp_path / "any.receipt"
    shutil.copy(other, renamed)
    shutil.copy(other, free)
    wrong, right = at_once([("verify", renamed), ("verify", free)])
    assert "it is the receipt that was named" in wrong.error
    assert kept.stem in wrong.error
    assert right.code == 0
