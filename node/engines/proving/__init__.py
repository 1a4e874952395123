"""Proofs in zero knowledge that a small model gave an output: made, and checked, by ezkl."""
