"""Options of `join` that say what a gateway's clients pay, and how."""

from collections.abc import Mapping
from typing import Any

import click

from node.commands.command import together
from node.gateway_config import EVM_NETWORK_DEFAULT, HttpPay, pay_of

gateway_pay_options = together(
    click.option(
        "--http-pay",
        metavar="MEANS",
        help="Let clients without an API key pay for each request, as x402 has it: with credits of"
        " this network, in dollars (evm), or both (credits,evm).",
    ),
    click.option(
        "--http-price",
        metavar="IN:OUT",
        help="What clients of the gateway pay, in credits, besides what peers ask, as"
        " 0.3/1k:0.6/1k+0.001. In dollars, one dollar for a credit.",
    ),
    click.option(
        "--facilitator", metavar="URL", help="Who checks and settles payments in dollars."
    ),
    click.option("--pay-to", metavar="0x…", help="The account that dollars are paid to."),
    click.option(
        "--evm-network",
        default=EVM_NETWORK_DEFAULT,
        show_default=True,
        help="The network that dollars are paid on; eip155:84532 is for tests.",
    ),
)


def http_pay_of(typed: Mapping[str, Any]) -> HttpPay | None:
    """What these options say; InputError if it makes no sense."""
    named = ("http_pay", "http_price", "facilitator", "pay_to", "evm_network")
    return pay_of(*(typed[it] for it in named))
