"""A network with credits, typed: begin it, join it, pay, and check all of it offline."""

import time
from pathlib import Path

from store import key_seed
from tests.evidence.crimes import fork_of
from tests.live.command_line import baton, joined
from wire.signed import sign
from wire.signing import SigningKey

DEADLINE_S = 120.0


def test_credits_are_paid_and_the_whole_ledger_is_checked_offline(tmp_path: Path) -> None:
    genesis, ledger = tmp_path / "home.genesis", tmp_path / "all.ledger"
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--state", first, "--out", genesis, "--epoch", "3s", "--grant", "me=10")
    made = baton("network", "new", "home", *options, "--json").document
    assert (len(made["members"]), made["tolerates"]) == (1, 0)
    assert "is there already" in baton("network", "new", "home", *options).error
    role = ("--role", "store", "--genesis", genesis)
    giving = ("--sponsor", "1", "--sponsor-each", "0.5")
    with joined(first, *role, *giving) as member, joined(second, member.address, *role) as other:
        paid = member.ask("wallet", "pay", other.id, "2.5", "--json").document
        assert paid["state"] == "settled"
        assert other.ask("wallet", "--json").document["balance"] == 2_500_000
        assert "are more" in other.ask("wallet", "pay", member.id, "3").error
        assert "not an amount" in other.ask("wallet", "pay", member.id, "1e3").error
        given = other.ask("wallet", "faucet", "--json").document
        assert (given["sponsor"], given["balance"]) == (member.id, 3_000_000)
        assert "each key once" in other.ask("wallet", "faucet", "--sponsor", member.id).error
        assert member.ask("wallet", "log", "--json").document["orders"][1]["spent"] == 2_500_000
        staked = member.ask("stake", "add", "2", "--for", "verify", "--json").document
        assert (staked["action"], staked["state"]) == ("stake", "settled")
        shown = other.ask("stake", "show", member.id).out
        assert "2 credits staked for verify" in shown
        back = member.ask("stake", "unbond").out
        assert "come back at the end of epoch" in back
        assert "nothing is staked" in member.ask("stake", "unbond").error
        assert "no role 'king'" in member.ask("stake", "add", "2", "--for", "king").error
        proof = tmp_path / "two-logs.fork"
        thief = SigningKey(key_seed(first, lambda: b""))
        proof.write_bytes(sign(fork_of(thief), thief).raw)
        found = baton("slash", proof, "--only-check", "--state", second, "--json").document
        assert (found["holds"], found["against"]) == (True, [member.id])
        slashed = other.ask("slash", proof, "--json").document
        assert slashed["order"]["state"] == "settled"
        forged = bytearray(proof.read_bytes())
        forged[-1] ^= 1
        proof.write_bytes(forged)
        assert "can be read" in other.ask("slash", proof).error
        assert "is no evidence" in baton("slash", genesis, "--state", second).error
        assert baton("evidence", "--state", second, "--json").document["evidence"] == []
        assert "gives newcomers 0.5 credits each: " in member.ask("status", "--all").out
        status = member.ask("status", "--json").document
        assert status["ledger"]["tolerates"] == 0
        assert "ledger" in status["roles"]
        deadline_at_s = time.monotonic() + DEADLINE_S
        while other.ask("ledger", "export", ledger, "--json").document["orders"] < 5:
            assert time.monotonic() < deadline_at_s
        log = other.ask("wallet", "log", "--json").document
        received = [(it["from"], it["amount"]) for it in log["received"]]
        assert received == [(member.id, 500_000), (member.id, 2_500_000)]
        assert "2 payments to it" in other.ask("wallet", "log").out
        shown = other.ask("ledger", "show", member.id, "--json").document
        assert (shown["balance"], shown["leaving"][0]["amount"]) == (5_000_000, 1_000_000)
    checks = ("ledger", "check", ledger, "--genesis", genesis, "--account", paid["pay"][0]["to"])
    checked = baton(*checks, "--json").document
    assert (checked["orders"], checked["balance"], checked["stakes"]) == (5, 3_000_000, 1_000_000)
    assert checked["supply"] == made["supply"]
    page = tmp_path / "usage.html"
    options = ("usage", "--cohorts", "--by", "account", "--genesis", genesis, "--offline", ledger)
    usage = baton(*options, "--html", page, "--json").document
    assert (usage["network"], usage["paid"], usage["accounts"]) == (made["network"], 0, 0)
    assert usage["epochs"] == checked["epochs"]
    assert "Do people come back" in page.read_text(encoding="utf-8")
    assert "who came back" in baton(*options).out
    altered = bytearray(ledger.read_bytes())
    altered[-100] ^= 1
    ledger.write_bytes(altered)
    assert "does not hold" in baton(*checks).error
    assert "does not hold" in baton(*options).error


def test_what_cannot_begin_or_be_joined_says_why(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "peer", "--out", tmp_path / "x.genesis")
    for options, why in (
        (("--epoch", "soon"), "not a time"),
        (("--epoch", "0s"), "no such network"),
        (("--member", "me"), "not a key"),
        (("--grant", "me"), "no grant"),
        (("--grant", "me=0"), "cannot be paid"),
        (("--grant", "me=2", "--supply", "1"), "more than the supply"),
    ):
        assert why in baton("network", "new", "x", *options, *state).error
    assert not (tmp_path / "x.genesis").exists()
    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"no genesis")
    for file, why in ((nothing, "no genesis file"), (tmp_path / "gone", "cannot be read")):
        assert why in baton("join", "--genesis", file, "--state", tmp_path / "peer").error
        assert baton("ledger", "check", file).error
    assert "not a time" in baton("usage", "--offline", nothing, "--week", "soon").error
    assert "not a key" in baton("usage", "--offline", nothing, "--market", "me").error
    assert "not a ledger" in baton("usage", "--offline", nothing).error
    peer = ("join", "--state", tmp_path / "peer", "--port", "0")
    assert "alone gives nothing" in baton(*peer, "--sponsor-each", "1").error
    assert "or to give" in baton(*peer, "--sponsor", "100").error
    no_ledger = baton("join", "--role", "ledger", "--state", tmp_path / "peer", "--port", "0")
    assert "has no ledger" in no_ledger.error
