"""`models calibrate` says in one line what it cannot measure."""

from dataclasses import replace
from pathlib import Path

import pytest

from node.commands.calibrate import config_of
from node.engines.host.launch import EngineConfig
from tests.live.command_line import baton_in, commands_running
from wire.errors import InputError


def test_what_cannot_be_calibrated_is_one_line(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "s"))
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    with commands_running():
        calibrate = ("models", "calibrate")
        assert "is no language model" in baton_in(cache, *calibrate, "minilm", *state).error


def test_devices_are_named_as_join_names_them_and_compilers_besides() -> None:
    base = replace(EngineConfig(), device="CPU:CLANG")
    names = {"cpu": "CPU:CLANG", "LLVM": "CPU:LLVM", "x86": "CPU:X86", "cl": "CL"}
    assert {name: config_of(base, name).device for name in names} == names
    assert config_of(base, "cl:1").index == 1
    with pytest.raises(InputError, match="there is no device"):
        config_of(base, "gcc")
