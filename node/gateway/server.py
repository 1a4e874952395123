"""HTTP for this peer's clients: the listener, the server behind it, and its end."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from node.gateway.app import gateway_app
from node.gateway.availability import say_leaving
from node.gateway.credit_means import CreditMeans
from node.gateway.evm_means import EvmMeans
from node.gateway.facilitator import Facilitator, facilitator_at
from node.gateway.http_connection import HttpLimits
from node.gateway.http_server import HttpServer, listening_on
from node.gateway.keys import keys_file, read_keys
from node.gateway.payment_journal import PaymentJournal
from node.gateway.paywall import PaymentMeans, Paywall
from node.gateway.prices import HttpPrices
from node.gateway.spending import Purses
from node.gateway_config import GatewayConfig, HttpPay
from node.ingest.guard import Network, real_network
from node.paying.voucher_till import VoucherTill
from node.peer import Node
from wire.errors import InputError

BACKLOG = 256


@asynccontextmanager
async def open_gateway(
    node: Node, config: GatewayConfig, network: Network | None = None
) -> AsyncIterator[str]:
    """Serve HTTP for as long as the block runs; the base URL. InputError if it cannot be.

    `network` is how a facilitator is reached.
    """
    is_open = config.pay is None and not config.apps and not read_keys(keys_file(node.config.state))
    if not config.loopback and is_open:
        raise InputError(
            f"{config.host} is reached from other machines, and there is no API key",
            todo="python -m node keys add NAME, or serve --http 127.0.0.1:8000",
        )
    paywall = None
    if config.pay is not None:
        # The system's authorities are read from its disk.
        tls = await trio.to_thread.run_sync(ssl.create_default_context)
        paywall = open_paywall(node, config.pay, network or real_network(), tls)
    app, batches = gateway_app(node, config, paywall)
    server = HttpServer(
        app.handle,
        HttpLimits(
            connections_max=config.connections_max,
            first_byte_s=config.first_byte_s,
            idle_s=config.idle_s,
            body_s=config.body_s,
            send_s=config.send_s,
        ),
        node.dependencies.environment.wall_s,
        node.note,
    )
    node.status_sources["http"] = server.status
    with _listening(config) as listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.accept_all, listening, nursery)
            nursery.start_soon(batches.run)
            if app.apps is not None:
                nursery.start_soon(app.apps.keys.run)
            if paywall is not None:
                nursery.start_soon(paywall.run)
            if node.ledger is not None:
                node.ledger.follow()
            shown = f"[{config.host}]" if ":" in config.host else config.host
            try:
                yield f"http://{shown}:{listening.getsockname()[1]}"
            finally:
                with trio.CancelScope(shield=True):
                    await server.close(node.config.leave_s, say_leaving)
                nursery.cancel_scope.cancel()
                for name in ("http", "keys", "app_keys"):
                    del node.status_sources[name]


def open_paywall(node: Node, pay: HttpPay, network: Network, tls: ssl.SSLContext) -> Paywall:
    """What takes payments for requests; InputError if it cannot be."""
    means: dict[str, PaymentMeans] = {}
    vouchers = None
    if pay.evm is not None:
        facilitator = Facilitator(facilitator_at(pay.evm.facilitator), network, tls)
        means["eip155"] = EvmMeans(pay.evm, facilitator)
    if pay.credits:
        if node.ledger is None or node.paying is None:
            raise InputError(
                "a network without a genesis has no credits to be paid in",
                todo="leave credits out of --http-pay, or join one with --genesis FILE",
            )
        vouchers = VoucherTill(node.paying.till.channels)
        means["baton"] = CreditMeans(
            node.ledger.wallet, node.app_owner.subscriptions, node.ledger.follower, vouchers
        )
    wall_s = node.dependencies.environment.wall_s
    journal = PaymentJournal(node.dependencies.store)
    journal.load(wall_s())
    prices = HttpPrices(node, pay.price)
    return Paywall(means, prices, journal, Purses(), wall_s, node.note, vouchers)


def _listening(config: GatewayConfig) -> socket.socket:
    try:
        return listening_on(config.host, config.port, BACKLOG)
    except OSError as error:
        raise InputError(
            f"{config.host} port {config.port} cannot be listened on: {error.strerror}",
            todo="give another with --http ADDRESS:PORT",
        ) from error
