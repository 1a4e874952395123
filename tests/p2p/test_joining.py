"""What another machine is told to type is what lets it into this network."""

import shlex

import pytest

from node.commands.cli_peer import join_command
from p2p.joining import Joining
from wire.content import ContentId

GENESIS = str(ContentId.of(b"a genesis"))
OWNER = "12D3KooWAd8yoAf7nnAfu8ymrUg4nhgYNTrtFC1tbBcuWGUWc8Ps"
AT = "/ip4/192.0.2.7/tcp/4747/p2p/" + OWNER


@pytest.mark.parametrize(
    ("joining", "line"),
    [
        (Joining(address=AT), f"join {AT}"),
        (Joining(), "join ADDRESS"),
        (Joining(address=AT, network="a b"), f"join {AT} --network 'a b'"),
        (Joining(address=AT, network=GENESIS), f"join {AT} --genesis FILE"),
        (Joining(address=AT, network=OWNER, is_private=True), "join --invite-file FILE"),
        (
            Joining(address=AT, network=GENESIS, is_private=True),
            "join --invite-file FILE --genesis FILE",
        ),
    ],
)
def test_the_line_names_what_the_network_asks_for(joining: Joining, line: str) -> None:
    assert joining.line() == f"python -m node {line}"
    assert joining.line("--role verify") == f"python -m node {line} --role verify"
    assert joining.have("check", "--role verify").endswith(f"python -m node {line} --role verify")
    # As `join` reads it.
    words = shlex.split(joining.line("--role verify"))[4:]
    assert join_command.make_context("join", words).params["roles"] == ("verify",)


def test_in_a_private_network_an_invite_comes_first() -> None:
    owner = Joining(is_private=True, is_owner=True).have("check")
    assert owner.startswith("print an invite: python -m node invite > FILE; and have another")
    member = Joining(is_private=True).have("check")
    assert member.startswith("have the network's owner print an invite: python -m node invite")
    assert "invite" not in Joining().have("check")
