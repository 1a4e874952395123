"""What the peer's own commands ask it over its control socket, and what it does for its owner."""
