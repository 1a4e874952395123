"""Models on the command line: in from files, listed, out again; with a peer and without."""

from pathlib import Path

import pytest

from tests.engines.tiny_gguf import write_gguf
from tests.live.command_line import LOOPBACK, at_once, baton, joined

ONNX = Path(__file__).parents[1] / "engines" / "models" / "torch_mlp.onnx"


def test_without_a_peer_models_are_kept_in_its_folder(state: Path, tmp_path: Path) -> None:
    assert baton("models", "--json", "--state", state).document["kept"] == []
    assert not state.exists()
    file = write_gguf(tmp_path / "small.gguf")
    added = baton("models", "add", file, "--json", "--state", state).document
    assert (added["name"], added["format"], added["running"]) == ("small", "gguf", False)
    found = baton("models", "--json", "--state", state).document
    assert [(it["id"], it["whole"]) for it in found["kept"]] == [(added["id"], True)]
    assert "no peer is running" in baton("models", "--state", state).out

    # A peer that starts there has it, and what it is given while it runs.
    with joined(state, "--role", "store") as peer:
        found = peer.ask("models", "--json").document
        assert (found["running"], found["kept"][0]["name"]) == (True, "small")
        added = peer.ask("models", "add", ONNX, "--name", "mine", "--json").document
        # It plays no role that runs models.
        assert (added["name"], added["served"]) == ("mine", False)
        said = " ".join(peer.ask("models", "add", ONNX, "--name", "mine").out.split())
        assert "does not serve it: it plays no role that runs models" in said
        assert f"restart with: python -m node join --state {state} … --model mine" in said
        pulled = peer.ask("models", "pull", added["id"], "--json").document
        assert pulled["id"] == added["id"]
        assert peer.ask("models", "rm", "mine").code == 0
        assert "mine" in peer.ask("models", "rm", "mine").error
    assert baton("models", "rm", "small", "--state", state).code == 0
    assert baton("models", "--json", "--state", state).document["kept"] == []


def test_what_cannot_run_is_refused_in_one_line(state: Path, tmp_path: Path) -> None:
    strange = write_gguf(tmp_path / "strange.gguf", "gptneox")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(ONNX.read_bytes()[:-100])
    wrong = [
        (("models", "add", strange), "gptneox"),
        (("models", "add", cut), "cut.onnx"),
        (("models", "add", tmp_path), "config.json"),
        (("models", "add", "./nowhere.gguf"), "does not exist"),
        (("models", "add", "bafkreig2ti3nox5hqiwrw2bbb6iyacx2jetpvkpe3o7noc7xft2khj5bza"), "join"),
        (("models", "pull", "minilm"), "none is running"),
        (("models", "rm", "nothing"), "no model 'nothing'"),
        (("join", "--role", "infer", "--model", strange, *LOOPBACK), "gptneox"),
        (("join", "--model", tmp_path / "none.onnx", *LOOPBACK), "does not exist"),
        (("join", "--schedule", "always", *LOOPBACK), "--schedule"),
        (("join", "--cpu", "0%", *LOOPBACK), "--cpu"),
        (("join", "--gpu", "0", *LOOPBACK), "--vram"),
        (("join", "--vram", "8GB", *LOOPBACK), "--gpu"),
        (("join", "--memory", "much", *LOOPBACK), "'much' is not a size"),
    ]
    commands = [
        (*arguments, "--state", state.parent / f"{state.name}{number}")
        for number, (arguments, _) in enumerate(wrong)
    ]
    for done, (arguments, said) in zip(at_once(commands), wrong, strict=True):
        assert said in done.error, arguments


@pytest.mark.parametrize("name", ["minilm", "hash"])
def test_a_pinned_name_is_nobody_elses(state: Path, name: str) -> None:
    line = baton("models", "add", ONNX, "--name", name, "--state", state).error
    assert "a name that Baton reserves for another model" in line
