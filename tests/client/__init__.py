"""The Python client against a real gateway on a real socket."""
