"""The models of this peer: kept as files, loaded within a budget, probed, measured, offered."""
