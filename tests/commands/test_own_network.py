"""The network of a command's own: the peer serves what has a name; files are given to it later."""

from pathlib import Path

import pytest

from node.commands.own_network import command_of


@pytest.mark.parametrize(
    ("model", "served"), [("smollm2", True), ("./m.gguf", False), ("/models/encoder", False)]
)
def test_a_file_is_kept_once_by_the_command_alone(model: str, served: bool) -> None:
    # Kept twice, the second copy takes the place of the first, which the peer is loading.
    command = command_of(Path("state"), model)
    assert ("--model" in command) == served
    assert (model in command) == served
