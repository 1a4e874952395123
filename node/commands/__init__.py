"""The commands of `python -m node`: each says what it does, and shows it as text or as JSON."""
