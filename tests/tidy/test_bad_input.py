"""What an economy is fed by those who cheat: each kind of bad input has a test that is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COVERED = {
    "evidence that is forged": "evidence/test_offences.py::test_evidence_altered_in_any_byte_",
    "evidence that is doubled": "ledger/test_slashing.py::test_the_same_act_is_punished_once_",
    "one act shown by two kinds": "ledger/test_slashing.py::test_two_kinds_of_evidence_for_one_",
    "evidence that is stale": "ledger/test_slashing.py::test_what_was_asked_back_an_order_before_",
    "evidence of an honest verifier whose rows were right": (
        "evidence/test_offences.py::test_a_verifier_is_convicted_by_a_wrong_row_"
    ),
    "evidence of an asker with three verifiers of his own": (
        "ledger/test_juries.py::test_an_asker_with_three_verifiers_of_his_own_gets_nobody_slashed"
    ),
    "evidence larger than an order": "evidence/test_convicting.py::test_what_is_too_large_for_the_",
    "evidence as large as an order": "ledger/test_large_orders.py::test_evidence_of_70_kib_",
    "a receipt of a task that was passed on": (
        "ledger/test_large_cases.py::test_the_leg_that_is_accused_is_judged_and_no_other"
    ),
    "receipts that are no chain": "ledger/test_large_cases.py::test_receipts_that_are_no_chain_",
    "an answer that the accuser does not show": (
        "ledger/test_large_cases.py::test_a_juror_fetches_what_a_case_names_and_abstains_"
    ),
    "unbonding an order before the evidence": (
        "ledger/test_slashing.py::test_what_was_asked_back_an_order_before_the_evidence_"
    ),
    "a slash larger than the stake": "ledger/test_slashing.py::test_penalties_larger_than_the_",
    "ballots twice": "ledger/test_motions.py::test_of_two_ballots_the_last_counts_once_",
    "a ballot by unbonded stake": "ledger/test_motions.py::test_of_two_ballots_the_last_counts_",
    "a ballot of a key without stake or use": (
        "ledger/test_motions.py::test_a_key_that_has_neither_staked_nor_paid_leaves_no_row"
    ),
    "a ballot by use from a ring": "ledger/test_motions.py::test_what_a_ring_paid_itself_does_not_",
    "a parameter beyond its bounds": "ledger/test_motions.py::test_a_parameter_beyond_its_bounds_",
    "two motions that change one parameter": (
        "ledger/test_motions.py::test_of_two_that_change_one_parameter_the_greater_id_holds"
    ),
    "an epoch of 0 s by a motion": "live/test_govern.py::test_what_is_no_motion_says_why",
    "an epoch of 0 s at the beginning": "live/test_ledger.py::test_what_cannot_begin_or_be_",
    "a share that is none": "live/test_govern.py::test_what_is_no_motion_says_why",
    "a grant to oneself": "ledger/test_motions.py::test_a_grant_is_paid_step_by_step_",
    "an empty fund": "ledger/test_motions.py::test_a_fund_that_has_not_enough_pays_nothing",
    "an author claimed twice": "ledger/test_model_registry.py::test_an_author_claimed_twice_is_",
    "a revoked key at a gateway that is cut off": (
        "apps/test_apps.py::test_a_gateway_that_is_cut_off_lets_nobody_in_after_a_minute"
    ),
    "one key's budget at two gateways": "apps/test_apps.py::test_one_budget_is_spent_once_at_two_",
    "an owner's payments at two gateways": "apps/test_owner_pays.py::test_two_gateways_at_once_",
    "a user who pays for what the key may not do": (
        "gateway/test_user_payments.py::test_the_apps_price_comes_out_of_the_budget_"
    ),
    "a hold moved from door to door": "apps/test_held_credits.py::test_a_hold_that_moves_",
    "a subscription of another app": "apps/test_subscriptions.py::test_what_was_paid_for_one_app_",
    "a policy signed by another": "apps/test_apps.py::test_what_an_owner_must_not_tell_",
    "a clock a day off": "apps/test_clocks.py::test_a_revoked_key_is_refused_within_a_minute_",
    "a key that has ended by its owner's clock": "apps/test_clocks.py::test_a_key_that_has_ended_",
    "use lines doubled, missing, of another network": (
        "ledger/test_use_lines.py::test_lines_that_are_missing_doubled_or_of_another_network_"
    ),
    "a usage file of 10 GB": "ledger/test_use_lines.py::test_a_huge_file_is_refused_",
    "a ballot or a use line altered": "ledger/test_motions.py::test_a_ballot_or_a_line_of_use_",
    "jurors who lie, copy, abstain, or seal and do not tell": (
        "ledger/test_jury_attacks.py::test_each_plot_gains_what_the_odds_of_seats_say"
    ),
    "a leader who grinds": "ledger/test_juries.py::test_a_leader_that_tries_all_sets_of_seals_",
}


@pytest.mark.parametrize("what", COVERED)
def test_each_kind_of_bad_input_has_a_test(what: str) -> None:
    file, _, name = COVERED[what].partition("::")
    text = (TESTS / file).read_text()
    assert re.search(rf"^(async )?def {re.escape(name)}", text, re.MULTILINE), COVERED[what]
