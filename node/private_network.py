"""Which private network a state folder belongs to, and how a peer is configured for it."""

from dataclasses import replace

from node.config import NodeConfig
from p2p.member_rows import OwnMembership, own_membership
from p2p.members import PrivateNetwork, addresses_of
from store import Store
from wire.errors import InputError
from wire.membership import Invite
from wire.signed import Signed, open_signed
from wire.signing import SigningKey


def belonging(
    config: NodeConfig, key: SigningKey, store: Store
) -> tuple[NodeConfig, PrivateNetwork | None]:
    """The configuration in the private network of the invite, or of this folder, if there is one.

    InputError if these are two, or if there is neither a membership nor an invite.
    """
    own, given = own_membership(store), config.invite
    if own is None and given is None:
        if config.private:
            raise InputError(
                "this peer is no member of a private network yet, and the invite is not there",
                todo="put the line that `invite` printed into the file, or leave --invite-file out",
            )
        return config, None
    if own is not None and given is not None and own.network != given[0].signer:
        raise InputError(
            f"this state folder belongs to the private network {own.network}, and the invite is to"
            f" {given[0].signer}",
            todo="give another folder with --state",
        )
    if own is not None and not own.membership and own.network != key.peer and given is None:
        raise InputError(
            "the key in this state folder is not that of the network's owner any more",
            todo="put the folder's own file `key` back, or give another folder with --state",
        )
    private = _private(own, given, store)
    addresses = [
        address
        for raw in (given[0].raw if given else b"", own.joined_by if own else b"")
        if raw
        for admitter in open_signed(raw, Invite).record.admitters
        if admitter.peer != key.peer
        for address in addresses_of(admitter)
    ]
    # A network with a ledger is named by its genesis, and a private one else by its owner.
    network = config.peers.network if config.genesis is not None else str(private.network)
    bootstraps = tuple(dict.fromkeys((*config.peers.bootstraps, *addresses)))
    peers = replace(config.peers, network=network, bootstraps=bootstraps)
    return replace(config, peers=peers), private


def _private(
    own: OwnMembership | None, given: tuple[Signed[Invite], SigningKey] | None, store: Store
) -> PrivateNetwork:
    if own is None:
        assert given is not None
        invite, claim_key = given
        return PrivateNetwork(
            network=invite.signer,
            name=invite.record.name,
            store=store,
            invite=invite,
            claim_key=claim_key,
        )
    invite_given, key_given = given if given is not None else (None, None)
    return PrivateNetwork(
        network=own.network,
        name=own.name,
        store=store,
        own=own,
        invite=invite_given,
        claim_key=key_given,
    )
