"""Workflows: a source, a model and a destination, run on a schedule without anybody looking."""
