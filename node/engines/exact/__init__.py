"""Models in whole numbers: equal outputs, to the bit, on every machine that computes them."""
