"""What can be typed: each command's arguments, options, help and examples.

Importing this package loads click and little else. Whatever takes long to load is imported inside
the functions that run a command.
"""
