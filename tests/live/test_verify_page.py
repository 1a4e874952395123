"""`verify` as a page for people: what it is about, what is proved, what is not."""

from pathlib import Path

from tests.live.command_line import Peer, baton, joined

QUESTION = "what is a [bold]\x1b[2Jbaton?"


def test_the_page_says_first_what_was_asked_and_never_just_that_it_holds(asker: Peer) -> None:
    generate = ("--fresh", "--operation", "generate", "--tokens", "2", "--text", QUESTION)
    checked = asker.ask("ask", "hash", "--fresh", "--text", "hello", "--verdicts", "2/2", "--json")
    unchecked = asker.ask("ask", "hash", *generate, "--verdicts", "0/0", "--json")
    page = baton("verify", unchecked.document["receipt_file"]).out
    asked, of, when, by_whom, answer, *_ = page.splitlines()
    assert asked.startswith("asked")
    # Shown as text: neither markup nor an escape.
    assert "what is a [bold]\N{REPLACEMENT CHARACTER}[2Jbaton?" in asked
    assert "hash baf" in of
    assert "generate (" in of
    assert when.startswith("when     20")
    assert f"…{asker.id[-6:]}" in by_whom
    assert answer.split()[1:] == unchecked.document["result"]["text"].split()
    end = " ".join(page.split("\n\n")[-1].split())
    assert end.startswith("nobody checked this answer")
    assert "holds" not in end
    sections = [page.index(it) for it in ("What is proved", "What nobody can know")]
    assert sections == sorted(sections)

    end = baton("verify", checked.document["receipt_file"]).out.split("\n\n")[-1]
    assert end.startswith("the receipt holds: verifiers, 2 drawn by lot")


def test_a_level_is_chosen_by_its_word_and_refused_in_words(asker: Peer) -> None:
    ask = ("ask", "hash", "--fresh", "--text", "hello", "--json")
    spot = asker.ask(*ask, "--level", "spot", "--verdicts", "2/2").document
    signed = asker.ask(*ask, "--level", "signed").document
    assert signed["needed"] == 0
    assert spot["needed"] == 2
    found = [
        baton("verify", it["receipt_file"], "--json").document["level"] for it in (spot, signed)
    ]
    assert found == ["spot", "signed"]
    refused = asker.ask(*ask, "--level", "exact")
    assert "the level exact is for models in whole numbers" in refused.error
    assert "the level zk is for calls of ONNX models" in asker.ask(*ask, "--level", "zk").error
    assert "has no verdicts" in asker.ask(*ask, "--level", "signed", "--verdicts", "2/2").error


def test_an_answer_that_is_kept_is_found_by_its_id(state: Path) -> None:
    with joined(state, "--role", "infer", "--model", "hash") as peer:
        asked = peer.ask("ask", "hash", "--text", "hello", "--verdicts", "0/0", "--json").document
        # As one that came over HTTP: kept by the peer, with no file beside.
        for file in (state / "receipts").iterdir():
            file.unlink()
        receipt = asked["receipt"]
        found = peer.ask("verify", receipt, "--json").document
        assert found["holds"]
        # The end of it, as lists show it, or its beginning, is enough.
        for part in (receipt[-8:], f"…{receipt[-8:]}", receipt[:20]):
            assert peer.ask("verify", part, "--json").document["receipt"] == receipt
        assert peer.ask("audit", peer.id, "--json").document["legs"] == 1
        assert not found["checked"]
        assert found["summary"]["question"] == "hello"
        listed = peer.ask("receipts").out
        assert "not checked" in listed
        assert "free" in listed
        assert "hash" in listed
        assert peer.stop().code == 0
    # One after the other: each has the folder to itself.
    assert baton("verify", receipt, "--json", "--state", state).document == found
    assert "no answer with" in baton("verify", asked["task"], "--state", state).error
    assert "keeps no receipts" in baton("verify", receipt, "--state", state / "none").error
