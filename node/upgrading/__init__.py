"""A new version beside the old one: put there, started, and taken back if it is not healthy."""
