"""Who has which part of what an answer was charged: the fund, the authors of its models. Pure.

It is what they have once the charges are redeemed, as parameters and the registry are now.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from node.ledger.model_registry import registered
from node.ledger.motion_shelf import parameter
from node.ledger.payment_channel import MILLION
from node.paying.bill import WORKED
from wire.content import ContentId
from wire.ledger import growth_of
from wire.motion import Parameter
from wire.receipt import Answer
from wire.signed import open_signed
from wire.task import Task


def shares_map(answer: Answer, rows: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What goes to the fund, and to which author for which model, in millionths."""
    stages = open_signed(answer.task, Task).record.stages
    charged: dict[ContentId, int] = defaultdict(int)
    for charge in answer.charges:
        model = stages[charge.stage].model if charge.stage < len(stages) else None
        if charge.kind in WORKED and model is not None:
            charged[model] += charge.amount
    authors = [
        {
            "model": str(model),
            "author": str(row.author),
            "amount": amount * row.share // MILLION,
        }
        for model, amount in sorted(charged.items())
        if (row := registered(rows, model)) is not None
    ]
    whole = sum(it.amount for it in answer.charges)
    return {"fund": growth_of(whole, parameter(rows, Parameter.GROWTH)), "authors": authors}
