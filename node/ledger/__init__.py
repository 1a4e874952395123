"""Credits that nobody can spend twice, kept by the members of a network, with no chain."""
