"""Timeouts that are fair on a starved machine."""
