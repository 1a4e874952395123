"""How this machine and its peer are: facts in, findings out."""
