"""By hand: a worker that lies is caught, and pays for it with its stake.

Once by a jury, about a model whose answers no rule decides; once by a dispute, about one in whole
numbers, of which the peer that asked keeps the evidence by itself.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines.exact.samples import kept_at, made
from tests.engines.onnx_models import golden
from tests.live.command_line import Done, Peer, baton, joined
from tests.live.test_govern import DEADLINE_S, until

LIAR = ("-m", "tests.live.lying")
CREDIT = 1_000_000


def done_by(ask: Callable[[], Done]) -> dict[str, Any]:
    """What a command says, once it succeeds."""
    deadline_at_s = time.monotonic() + DEADLINE_S
    while (done := ask()).code:
        assert time.monotonic() < deadline_at_s, done
    return done.document


def staked(peer: Peer) -> int:
    found: int = peer.ask("stake", "show", "--json").document["staked"]
    return found


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_worker_that_lies_loses_its_stake_to_a_jury_and_to_a_dispute(tmp_path: Path) -> None:
    genesis, ledger, rows = (tmp_path / it for it in ("g.genesis", "all.ledger", "rows.jsonl"))
    states = [tmp_path / it for it in ("keeper", "juror", "liar", "asker")]
    digits = kept_at(tmp_path, made("sklearn_mlp"), "digits")
    rows.write_text(json.dumps({"X": golden("sklearn_mlp")[0]["X"][0].tolist()}) + "\n")
    typed = ("--state", states[0], "--out", genesis, "--epoch", "3s", "--grant", "me=100")
    baton("network", "new", "home", *typed, "--json")
    role = ("--genesis", genesis, "--model", "minilm", "--role")
    with (
        joined(states[0], *role, "verify", "--model", digits) as keeper,
        joined(states[1], keeper.address, *role, "verify") as juror,
        joined(states[2], keeper.address, *role, "infer", "--model", digits, program=LIAR) as liar,
        joined(states[3], keeper.address, "--genesis", genesis, "--role", "store") as asker,
    ):
        for peer in (juror, liar, asker):
            keeper.ask("wallet", "pay", peer.id, "20", "--json")
        for peer in (keeper, juror):
            done_by(lambda peer=peer: peer.ask("stake", "add", "10", "--for", "verify", "--json"))
        done_by(lambda: liar.ask("stake", "add", "16", "--for", "infer", "--json"))
        by_a_jury(keeper, juror, liar, asker, tmp_path)
        by_a_dispute(liar, asker, rows)
        asker.ask("ledger", "export", ledger, "--json")
    baton("ledger", "check", ledger, "--genesis", genesis, "--json")
    case = baton("jury", "list", "--offline", ledger, "--json").document["cases"][0]
    assert (case["state"], case["against"]) == ("wrong", liar.id)


def by_a_jury(keeper: Peer, juror: Peer, liar: Peer, asker: Peer, folder: Path) -> None:
    """A jury finds by itself that the liar's answer is not what the model gives."""
    case_file, finding = folder / "case.evidence", folder / "finding.evidence"
    asked = ("ask", "minilm", "a question", "--verdicts", "0/0", "--json")
    answer = done_by(lambda: asker.ask(*asked))
    charge = asker.ask("jury", "charge", answer["receipt"], case_file, "--json").document
    assert charge["against"] == liar.id
    case = done_by(lambda: asker.ask("slash", case_file, "--json"))["case"]

    def decided() -> Any:
        done = asker.ask("jury", "show", case, "--json")
        is_open = done.code or done.document["state"] in ("waiting", "jury", "jury_tells")
        return None if is_open else done.document

    found = until(decided)
    assert (found["state"], found["wrong"]) == ("wrong", 13)
    assert found["found"] == dict.fromkeys(found["seats"], "wrong")
    assert {*found["seats"]} <= {keeper.id, juror.id}
    assert "the answer is wrong" in asker.ask("jury", "list").out
    # Half of the stake is taken; of it the jurors are paid, and the accuser has its bond back.
    assert staked(liar) == 8 * CREDIT
    assert asker.ask("wallet", "--json").document["balance"] == 20 * CREDIT
    until(lambda: liar.ask("status", "--json").document["ledger"]["staked"] == 8 * CREDIT)
    paid = sum(it.ask("wallet", "--json").document["balance"] for it in (keeper, juror))
    assert paid == (100 - 40 - 10 - 10) * CREDIT + 13 * 100_000
    asker.ask("jury", "save", case, finding, "--json")
    shown = baton("slash", finding, "--only-check", "--genesis", folder / "g.genesis").out
    assert liar.id in shown
    assert "13 of 13 seats" in shown
    # The same answer is brought before no jury twice.
    assert "accused before" in asker.ask("slash", case_file).error


def by_a_dispute(liar: Peer, asker: Peer, rows: Path) -> None:
    """What the asker holds after a dispute convicts the liar, and nobody's word is needed."""
    out = rows.with_name("answers.jsonl")
    asked = ("ask", "digits", "--rows", rows, "--input", "X=X", "--out", out, "--force")

    def held() -> Any:
        asker.ask(*asked, "--verdicts", "1/1", "--deadline", "15", "--json")
        found = asker.ask("evidence", "--json").document["evidence"]
        return [it for it in found if it["holds"]]

    (evidence,) = until(held)
    assert (evidence["offence"], evidence["against"]) == ("lost_dispute", [liar.id])
    told = asker.ask("evidence").out
    assert "50 % of the stake" in told
    order = done_by(lambda: asker.ask("slash", evidence["file"], "--json"))["order"]
    assert order["spent"] == CREDIT
    until(lambda: staked(liar) == 4 * CREDIT)
    assert asker.ask("wallet", "--json").document["balance"] == 20 * CREDIT
    assert "taken for this act before" in asker.ask("slash", evidence["file"]).error
    # Whoever routes by stake counts what is left of it.
    until(lambda: asker.ask("stake", "show", liar.id, "--json").document["counts"] == 4 * CREDIT)
