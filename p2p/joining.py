"""What is typed so that another machine joins this peer's network. Pure."""

import shlex
from dataclasses import dataclass

from wire.content import ContentId
from wire.errors import Malformed

# A network with this name is joined without it.
NETWORK_DEFAULT = "baton"
_JOIN, _INVITE = "python -m node join", "python -m node invite > FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """How the network is joined: by whom that is allowed, and at which address."""

    # Where another machine would most likely reach this peer.
    address: str = ""
    network: str = NETWORK_DEFAULT
    # A private network, which this peer may own.
    is_private: bool = False
    is_owner: bool = False

    @property
    def has_ledger(self) -> bool:
        """Whether it is named by its genesis."""
        try:
            return bool(ContentId.parse(self.network))
        except Malformed:
            return False

    def line(self, options: str = "") -> str:
        """The line, to be typed there."""
        words = [_JOIN]
        if self.is_private:
            words.append("--invite-file FILE")
        else:
            words.append(self.address or "ADDRESS")
            if self.network != NETWORK_DEFAULT and not self.has_ledger:
                words.append(f"--network {shlex.quote(self.network)}")
        if self.has_ledger:
            words.append("--genesis FILE")
        return " ".join(filter(None, (*words, options)))

    def have(self, do: str, options: str = "") -> str:
        """Advice to have another machine `do` something; it begins with what is typed first."""
        if not self.is_private:
            return f"have another machine {do}: {self.line(options)}"
        invite = "print an invite" if self.is_owner else "have the network's owner print an invite"
        return f"{invite}: {_INVITE}; and have another machine {do} with it: {self.line(options)}"
