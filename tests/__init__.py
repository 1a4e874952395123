"""The proofs: the packages mirrored, plus tidy, sim, live, interop, engine and bench."""
