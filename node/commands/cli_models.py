"""`models` and `bench`: which models there are, and what this machine does with one."""

from pathlib import Path
from typing import Any

import click

from node.commands.cli_tasks import CONTENT_ID
from node.commands.command import Assembly, Command, Group, run
from node.commands.guest_options import guest_of, machine_options
from node.commands.options import json_option, state_option

SECONDS = click.FloatRange(0.1, 600.0)


@click.group(
    "models",
    cls=Group,
    invoke_without_command=True,
    examples=("models", "models add ./model.gguf"),
)
@state_option
@json_option
@click.pass_context
def models(context: click.Context, *, state: Path, as_json: bool) -> None:
    """List the models here and in the network, or change those here.

    With a peer running on the state folder the commands work through it, else on the folder alone.
    """
    if context.invoked_subcommand is None:
        from node.commands.models import list_models

        run(lambda: list_models(state.expanduser(), as_json=as_json))


@models.command(
    "add",
    cls=Command,
    examples=("models add ./model.gguf", "models add ./embedder --name my-embedder"),
)
@click.argument("what", metavar="FILE|FOLDER|CONTENT-ID")
@click.option("--name", help="What to call the model. Default: the name of its file.")
@state_option
@json_option
def add_command(*, what: str, name: str | None, state: Path, as_json: bool) -> None:
    """Keep a model, and serve it if a peer is running.

    It is a .gguf, an .onnx, an .exact, a folder with safetensors, or content of the network by
    its id. A running peer that runs or checks models serves it at once.
    """
    from node.commands.models import change_models, meant

    arguments = {"what": meant(what)} | ({} if name is None else {"name": name})
    run(lambda: change_models(state.expanduser(), "add", arguments, as_json=as_json))


@models.command("rm", cls=Command, examples=("models rm my-embedder",))
@click.argument("what", metavar="NAME|ID")
@state_option
@json_option
def remove_command(*, what: str, state: Path, as_json: bool) -> None:
    """Stop serving a model, and delete it from the store."""
    from node.commands.models import change_models

    run(lambda: change_models(state.expanduser(), "rm", {"what": what}, as_json=as_json))


@models.command("pull", cls=Command, examples=(f"models pull {CONTENT_ID}",))
@click.argument("what", metavar="NAME|ID")
@state_option
@json_option
def pull_command(*, what: str, state: Path, as_json: bool) -> None:
    """Fetch a whole model from the peers that hold it.

    A download that was interrupted goes on where it stopped.
    """
    from node.commands.models import change_models

    run(lambda: change_models(state.expanduser(), "pull", {"what": what}, as_json=as_json))


@models.command(
    "quantize",
    cls=Command,
    examples=(
        "models quantize --exact ./digits.onnx ./digits.exact --calibration rows.npz",
        "models quantize --exact ./digits.onnx ./digits.exact",
        "models quantize --exact smollm2 ./smollm2.exact",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--exact", is_flag=True, required=True, help="Whole numbers only: equal everywhere.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Rows to measure scales with: a .npz with an array for each input, and labels if known."
    " For a .gguf a text to measure with. Default: a part of Python's documentation.",
)
@json_option
def quantize_command(
    *, model: Path, out: Path, exact: bool, calibration: Path | None, as_json: bool
) -> None:
    """Make a model whose answers have equal bits on every machine.

    MODEL is an .onnx of fully connected layers, convolutions and pools, half of whose rows measure
    scales and the other half what it costs; or a language model of the family llama: a .gguf, or
    smollm2. OUT is the file to write, which ends in .exact.
    """
    from node.commands.quantize import quantize

    assert exact, "the option is required"
    run(lambda: quantize(model.expanduser(), out.expanduser(), calibration, as_json=as_json))


@models.command("srs", cls=Command, examples=("models srs ./srs", "models srs ./srs --json"))
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def srs_command(*, out: Path, as_json: bool) -> None:
    """Make a string of points for proofs, which its maker can forge.

    OUT is the SRS file to write, for join --srs on every peer of a network whose peers trust who
    runs this: the secret that it is made from is forgotten, and nobody can check that it was. A
    file of a ceremony, as `ezkl get-srs --logrows 14` fetches it, needs no such trust.
    """
    from node.commands.make_srs import make_srs

    run(lambda: make_srs(out.expanduser(), as_json=as_json))


@models.command(
    "calibrate",
    cls=Command,
    examples=(
        "models calibrate smollm2",
        "models calibrate ./model.gguf --beside cl --tokens 40000 --json",
    ),
)
@click.argument("model")
@click.option(
    "--beside",
    multiple=True,
    metavar="DEVICE",
    help="Whose answers are judged: cpu, llvm, x86 (other compilers), cl, cuda, amd, metal, webgpu;"
    " may be given again. Default: cpu, llvm and cl, as far as they work here.",
)
@click.option("--device", help="What this peer judges on, as it is given to join. Default: cpu.")
@click.option(
    "--tokens",
    default=10_000,
    show_default=True,
    type=click.IntRange(512, 10_000_000),
    help="How many tokens each device makes.",
)
@state_option
@json_option
@click.pass_obj
def calibrate_command(
    assembly: Assembly,
    /,
    *,
    model: str,
    beside: tuple[str, ...],
    device: str | None,
    tokens: int,
    state: Path,
    as_json: bool,
) -> None:
    """Measure how far honest engines are apart, for checks.

    MODEL is a language model: a .gguf, or the name or content id of one that is kept here. A third
    of the answers set the limits by which this peer judges those of others, from its next start on;
    the others say how often the limits would blame an honest peer. What was measured is kept:
    a measurement that was broken off goes on.
    """
    from node.commands.calibrate import calibrate
    from node.commands.models import meant
    from node.config import NodeConfig

    guest = guest_of(device=device, gpu=None, vram=None)
    config = NodeConfig(state=state.expanduser(), models=(meant(model),), guest=guest)
    run(lambda: calibrate(config, assembly.runtime(), beside, tokens, as_json=as_json))


@click.command(
    "bench", cls=Command, examples=("bench minilm", "bench ./model.gguf --seconds 10 --json")
)
@click.argument("model", default="minilm")
@click.option(
    "--seconds",
    default=5.0,
    show_default=True,
    type=SECONDS,
    help="For how many seconds each rate is measured.",
)
@machine_options
@state_option
@json_option
@click.pass_obj
def bench_command(
    assembly: Assembly, /, *, model: str, seconds: float, state: Path, as_json: bool, **guest: Any
) -> None:
    """Measure how fast this machine runs MODEL.

    This is what a peer on it would advertise. MODEL is a file or a folder, or the name or content
    id of a model that is kept here.
    """
    from node.commands.bench import bench
    from node.commands.models import meant
    from node.config import NodeConfig

    config = NodeConfig(state=state.expanduser(), models=(meant(model),), guest=guest_of(**guest))
    run(lambda: bench(config, assembly.runtime(), seconds, as_json=as_json))
