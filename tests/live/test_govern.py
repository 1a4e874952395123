"""By hand: use that is paid for, cohorts, a grant that is proposed, voted on, and paid.

One peer keeps the ledger, one runs a model for credits, and one asks it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.engines.formats.minilm import MINILM_ID
from tests.live.command_line import ROOT, baton, joined
from wire.signing import SigningKey

DEADLINE_S = 150.0
GRANT = """title = "a page that explains it"
why = "newcomers ask for one"
bond = "1"
[grant]
to = "{to}"
step = "100"
"""


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds, once it finds something."""
    deadline_at_s = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < deadline_at_s
    return found


@pytest.mark.soak
def test_use_is_seen_and_a_grant_is_proposed_voted_on_and_paid(tmp_path: Path) -> None:
    genesis, ledger, file = tmp_path / "home.genesis", tmp_path / "all.ledger", tmp_path / "m.toml"
    states = [tmp_path / it for it in ("keeper", "worker", "builder")]
    typed = ("--state", states[0], "--out", genesis, "--epoch", "2s", "--grant", "me=100")
    baton("network", "new", "home", *typed, "--json")
    role = ("--genesis", genesis, "--role")
    worker_role = (*role, "infer", "--model", "hash", "--price", "hash=0.3/1k:0.6/1k+0.01")
    with (
        joined(states[0], *role, "store") as keeper,
        joined(states[1], keeper.address, *worker_role) as worker,
        joined(states[2], keeper.address, *role, "store") as builder,
    ):
        keeper.ask("wallet", "pay", builder.id, "20", "--json")
        asked = ("ask", "hash", "a question", "--pay-max", "0.5", "--verdicts", "0/0", "--json")
        until(lambda: builder.ask(*asked).code == 0)

        def used() -> Any:
            worker.ask("earnings", "--redeem", "--json")
            return keeper.ask("usage", "--week", "2s", "--cohorts", "--json").document["paid"]

        until(used)
        file.write_text(GRANT.format(to=builder.id))
        made = builder.ask("fund", "apply", file, "--json").document
        motion = made["motion"]
        until(lambda: builder.ask("govern", "vote", motion[:12], "yes").code == 0)
        assert keeper.ask("govern", "vote", motion, "yes", "--json").document["state"] == "settled"

        def decided() -> Any:
            found = keeper.ask("govern", "show", motion, "--json").document
            return found if found["state"] != "open" else None

        found = until(decided)
        assert (found["state"], found["grant"]["paid"]) == ("passed", 1)
        assert found["use"][0] * 2 > found["use"][2] > 0
        fund = keeper.ask("fund", "--json").document
        assert fund["granted"] == 100_000_000
        assert fund["fund"] == fund["at_first"] + fund["growth"] - fund["granted"]
        assert "a page that explains it" in keeper.ask("govern", "list").out
        assert "decided: passed" in builder.ask("govern", "vote", motion, "no").error
        keeper.ask("ledger", "export", ledger, "--json")
    counted = baton("govern", "tally", motion, "--offline", ledger, "--json").document
    assert counted["ballots"] == {keeper.id: True, builder.id: True}
    script = [sys.executable, ROOT / "examples" / "recount.py", ledger]
    recounted = json.loads(subprocess.run(script, capture_output=True, check=True).stdout)
    assert recounted[motion]["state"] == "passed"
    assert recounted[motion]["use"] == counted["use"]
    assert recounted[motion]["stake"] == counted["stake"]


def test_what_is_no_motion_says_why(tmp_path: Path) -> None:
    file, state = tmp_path / "motion.toml", ("--state", tmp_path / "nobody")
    head = 'title = "t"\nwhy = "w"\n'
    for text, why in (
        ("title", "no TOML"),
        (head, "one parameter, or makes one grant"),
        (head + "[parameter]\nname = 'epoch'\nvalue = 0", "no parameter 'epoch'"),
        (head + "[parameter]\nname = 'growth'\nvalue = 0", "growth is 1 % to 20 %, not 0 %"),
        (head + "[parameter]\nname = 'growth'\nvalue = '25%'", "not 25 %"),
        (head + "[parameter]\nname = 'growth'\nvalue = 5.0", "'5.0' is no share: write"),
        (head + "[parameter]\nname = 'growth'\nvalue = nan", "is no share"),
        (head + "[parameter]\nname = 'growth'\nvalue = 1e-99999999", "is no share"),
        (head + "[parameter]\nname = 'growth'\nvalue = '0.0000001%'", "is no share"),
        (head + "[parameter]\nname = 'growth'\nvalue = true", "is no share"),
        (head + "[parameter]\nname = 'motion_bond'\nvalue = 0.001", "0.01 credits to 1000000"),
        (head + "[parameter]\nname = 'motion_bond'\nvalue = [1]", "is no amount"),
        (head + "[grant]\nto = 'me'\nstep = '1'", "not a key"),
        (head + "[grant]\nstep = '1'", "'to' is missing"),
        (head + "[model]\nid = 'smollm2'\nauthor = 'me'\nshare = 1", "not a content id"),
        (head + "[model]\nid = 'smollm2'\nauthor = 'me'", "'share' is missing"),
        (head + "[builder]\naccount = 'me'", "not a key"),
        (head + "[builder]\naccount = 'me'\nmatched = 3", "true or false"),
        (head + "colour = 'red'", "nothing that a motion says"),
        (head + "grant = 3", "a table is due"),
        ("x" * 20_000, "larger than"),
    ):
        file.write_text(text)
        assert why in baton("govern", "propose", file, *state).error
    assert "cannot be read" in baton("govern", "propose", tmp_path / "gone", *state).error
    claimed = "[model]\nid = '{id}'\nauthor = '{key}'\nshare = '20.1%'"
    file.write_text(head + claimed.format(id=MINILM_ID, key=SigningKey(bytes(32)).peer))
    assert "an author's share is 0 % to 20 %" in baton("govern", "propose", file, *state).error
    file.write_text(head + "[parameter]\nname = 'growth'\nvalue = 20000")
    assert "asks the fund for nothing" in baton("fund", "apply", file, *state).error
    assert "not a ledger" in baton("govern", "list", "--offline", file).error
