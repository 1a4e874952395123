"""A whole network in one process: real peers, made-up links, faults from a seed.

Everything that decides or speaks is what a user runs; only what the seams stand for is made up: the
wire between peers (`links`), the engine behind a model (`behaviour`), the clock.
"""
