"""How a peer that starts is configured for its network, and for whose it is."""

from dataclasses import replace

from node.config import NodeConfig
from node.ledger.peer_ledger import pin, pinned
from store import Store
from wire.errors import InputError
from wire.kinds import Role
from wire.ownership import read_line
from wire.signing import SigningKey


def as_owned(config: NodeConfig, key: SigningKey) -> NodeConfig:
    """The configuration with the owner that was named; InputError if it signed another key."""
    if not config.owner_line:
        return config
    ownership = read_line(config.owner_line, key.peer)
    return replace(config, peers=replace(config.peers, ownership=ownership))


async def in_network(config: NodeConfig, key: SigningKey, store: Store) -> NodeConfig:
    """The configuration in the network that is named, or that this folder belongs to.

    InputError if these are two. Whoever asks for the role of a member keeps the whole ledger, and
    takes part once a motion has given it a seat.
    """
    genesis = config.genesis or pinned(store)
    if genesis is None:
        if Role.LEDGER in config.roles:
            raise InputError(
                "a network without a genesis has no ledger",
                todo="make one with: python -m node network new NAME, and give --genesis FILE",
            )
        if config.prices or config.sponsoring is not None or config.relay_pay_max:
            raise InputError(
                "a network without a genesis has no credits to ask for, to pay, or to give",
                todo="leave out --price, --price-check, --relay-pay-max and --sponsor, or give"
                " --genesis FILE",
            )
        return config
    is_member = key.peer in {it.key for it in genesis.members}
    if config.sponsoring is not None:
        config.sponsoring.check_opens(genesis.account_min)
    await pin(store, genesis)
    return replace(
        config,
        genesis=genesis,
        roles=config.roles | ({Role.LEDGER} if is_member else set()),
        peers=replace(config.peers, network=str(genesis.id)),
    )
