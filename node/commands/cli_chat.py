"""`run`: talk with a model."""

from pathlib import Path

import click

from node.commands.command import Command, heading
from node.commands.guest_options import device_options, guest_of
from node.commands.options import deadline_option, state_option, text_of
from node.gateway_config import verdicts_of


@click.command(
    "run",
    cls=Command,
    examples=(
        "run smollm2",
        'run smollm2 --system "Answer in one sentence." --temperature 0',
        "run smollm2 --index bafkrei…",
    ),
)
@click.argument("model")
@heading("What the model is told")
@click.option("--system", help="What the model is told before anything else.")
@click.option(
    "--max-tokens", type=click.IntRange(1, 1 << 20), help="How many tokens to generate at most."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    help="How freely words are chosen. 0: always the likeliest one.",
)
@click.option("--seed", type=click.IntRange(0, 1 << 62), help="Makes chance repeatable.")
@click.option("--index", default="", help="Answer from this index, which ask --source printed.")
@click.option(
    "--search",
    default="minilm",
    show_default=True,
    help="The model that the index was made with.",
)
@heading("How it is answered")
@deadline_option(600, "After how many seconds an answer has failed.")
@click.option(
    "--verdicts",
    default="0/0",
    show_default=True,
    help="How many verdicts an answer needs, of how many verifiers; 0/0: none.",
)
@heading("Where no peer is running")
@device_options
@heading("Also")
@state_option
def run_command(
    *,
    model: str,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    deadline: int,
    verdicts: str,
    index: str,
    search: str,
    device: str | None,
    gpu: str | None,
    vram: str | None,
    state: Path,
) -> int:
    """Talk with MODEL in the terminal.

    MODEL is smollm2, or another model's name, content id or file. The running peer of --state
    asks; where none is running, a network of this machine alone runs until you leave. Without a
    terminal every line of the input is a question. With --index the passages nearest to each
    question are told to the model, and named beside its answer.
    """
    from node.commands.models import meant
    from node.commands.run import RunConfig, run

    settings = {"tokens": max_tokens, "temperature": temperature, "seed": seed}
    needed, verifiers = verdicts_of(verdicts)
    given = {"--device": device, "--gpu": gpu, "--vram": vram}
    # Said again by the peer that is started; what makes no sense is said before.
    guest_of(device=device, gpu=gpu, vram=vram)
    config = RunConfig(
        state=state.expanduser(),
        model=meant(model),
        system=text_of(system, None),
        parameters={key: value for key, value in settings.items() if value is not None},
        deadline_s=deadline,
        needed=needed,
        verifiers=verifiers,
        index=index,
        search=meant(search),
        device=tuple(
            word for name, text in given.items() if text is not None for word in (name, text)
        ),
    )
    return run(config)
