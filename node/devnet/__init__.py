"""A whole network in one process: real peers, simulated links, faults from a seed.

Everything that decides or speaks is what a user runs. Only network, engine and clock are simulated:
`links` is the network between peers, `adversary` has the engine.
"""
