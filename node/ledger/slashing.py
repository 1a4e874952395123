"""What the end of an epoch makes of stakes: what has left is given back to its owners. Pure."""

from node.ledger.books import Draft
from node.ledger.stake_shelf import released


def end_stakes(draft: Draft) -> None:
    """Give back what leaves with this epoch; `draft` has all its orders."""
    accounts = {*draft.books.stakes.rows, *draft.stakes}
    for account in sorted(accounts):
        row, back = released(draft.stake(account), draft.epoch)
        if back:
            draft.stakes[account] = row
            draft.credit(account, back)
