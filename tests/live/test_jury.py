"""By hand: an answer that no rule decides is laid before a jury, whose peers look themselves."""

from pathlib import Path
from typing import Any

import pytest

from tests.live.command_line import baton, joined
from tests.live.test_govern import until


@pytest.mark.soak
def test_an_honest_answer_is_found_right_by_a_jury_that_looks_by_itself(tmp_path: Path) -> None:
    genesis, ledger, case_file = (tmp_path / it for it in ("g.genesis", "all.ledger", "c.evidence"))
    states = [tmp_path / it for it in ("keeper", "worker", "asker")]
    typed = ("--state", states[0], "--out", genesis, "--epoch", "3s", "--grant", "me=100")
    baton("network", "new", "home", *typed, "--json")
    role, model = ("--genesis", genesis, "--role"), ("--model", "minilm")
    with (
        joined(states[0], *role, "verify", *model) as keeper,
        joined(states[1], keeper.address, *role, "infer", *model) as worker,
        joined(states[2], keeper.address, *role, "store") as asker,
    ):
        for peer in (worker, asker):
            keeper.ask("wallet", "pay", peer.id, "20", "--json")
        keeper.ask("stake", "add", "10", "--for", "verify", "--json")
        worker.ask("stake", "add", "10", "--for", "infer", "--json")
        asked = ("ask", "minilm", "a question", "--verdicts", "0/0", "--json")
        answer: dict[str, Any] = {}

        def answered() -> bool:
            done = asker.ask(*asked)
            if done.code == 0:
                answer.update(done.document)
            return done.code == 0

        until(answered)
        charge = asker.ask("jury", "charge", answer["receipt"], case_file, "--json").document
        assert charge["against"] == worker.id
        assert "no rule decides" in baton("slash", case_file, "--only-check").out

        def announced() -> Any:
            # The worker's stake counts from the next checkpoint on.
            done = asker.ask("slash", case_file, "--json")
            return done.document["case"] if done.code == 0 else None

        case = until(announced)

        def decided() -> Any:
            done = asker.ask("jury", "show", case, "--json")
            # Before the epoch has ended there is no case yet.
            if done.code or done.document["state"] in ("waiting", "jury", "jury_tells"):
                return None
            return done.document

        found = until(decided)
        assert (found["state"], found["right"]) == ("right", 13)
        assert found["found"] == {keeper.id: "right"}
        assert "the answer is right" in keeper.ask("jury", "list").out
        error = asker.ask("jury", "save", case[:12], tmp_path / "f.evidence").error
        assert "no jury found this answer wrong" in error
        assert "nothing is to be found" in keeper.ask("jury", "find", case, "wrong").error
        # Whoever asked saw each step, and showed the evidence by itself.
        log = asker.ask("wallet", "log", "--json").document["orders"]
        assert [it["action"] for it in log][:2] == ["charge", "announce"]
        # The accuser's bond has paid the juror.
        assert asker.ask("wallet", "--json").document["balance"] == 18_700_000
        assert worker.ask("stake", "show", "--json").document["staked"] == 10_000_000
        asker.ask("ledger", "export", ledger, "--json")
    baton("ledger", "check", ledger, "--genesis", genesis, "--json")
    assert baton("jury", "list", "--offline", ledger, "--json").document["cases"][0]["case"] == case
