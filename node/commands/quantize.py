"""`models quantize`: an integer model from a float one, and what it cost in accuracy."""

from pathlib import Path

import trio

from node.commands.content import counting
from node.commands.output import console, safe, show_aside, show_json, show_table, size
from node.commands.to_type import hint
from node.engines.formats.gguf_model import GgufModel
from node.models.exact_models import check_name, make_exact
from node.models.exact_texts import TextCost, make_exact_text
from node.models.pinned import PACKAGED
from wire.plural import plural

_STEPS = {
    "making": "making the exact model's matrices",
    "measuring": "measuring what that cost, on a text",
}


async def quantize(model: Path, out: Path, calibration: Path | None, *, as_json: bool) -> None:
    """Make the file and say how far its answers are from the float model's; InputError."""
    check_name(out)
    source = _source(model)
    if out.stem == source.stem and str(model) not in PACKAGED:
        show_aside(
            f"peers will call it {safe(out.stem)!r}, as they call {safe(source.name)}: for a peer"
            f" that is to have both, name it {safe(out.stem)}-exact.exact"
        )
    if source.suffix.lower() == ".gguf":
        with counting() as progress:
            task = progress.add_task(_STEPS["making"], total=None)

            def tell(step: str, done: int, count: int) -> None:
                progress.update(task, description=_STEPS[step], completed=done, total=count)

            shape, cost = await trio.to_thread.run_sync(
                make_exact_text, source, out, calibration, tell
            )
        size_bytes = (await trio.Path(out).stat()).st_size
        _show_text(out, size_bytes, shape, cost, as_json=as_json)
        return
    model = source
    made = await trio.to_thread.run_sync(make_exact, model, out, calibration)
    figures = dict(made.accuracy)
    size_bytes = (await trio.Path(out).stat()).st_size
    layers = [it.operator for it in made.layers]
    if as_json:
        show_json(
            {
                "file": str(out),
                "size_bytes": size_bytes,
                "layers": layers,
                "accuracy": figures,
            }
        )
        return
    console.print(f"made {safe(str(out))} ({size(size_bytes)}): {', '.join(layers)}")
    rows = figures.pop("rows")
    if figures.pop("synthetic"):
        console.print(
            "[yellow]the rows were made up[/yellow]: scales fit your inputs only if these look like"
            " normal random numbers.\nGive real ones with --calibration ROWS.npz"
        )
    shown = [
        (safe(name), f"{value:g}") for name, value in figures.items() if isinstance(value, float)
    ]
    show_table(f"beside the float model, on {rows!r} other rows", ("what", ""), shown)
    console.print(hint(f"serve it: python -m node join --role infer --model {safe(str(out))}"))


def _source(model: Path) -> Path:
    """The file of a model, which may be one of a package by its name; EngineMissing."""
    packaged = PACKAGED.get(str(model))
    if packaged is None or model.exists():
        return model
    files = packaged.files().values()
    return next((it for it in files if it.suffix.lower() == ".gguf"), model)


def _show_text(
    out: Path, size_bytes: int, shape: GgufModel, cost: TextCost, *, as_json: bool
) -> None:
    if as_json:
        accuracy = {
            "tokens": cost.tokens,
            "loss": cost.loss,
            "loss_in_floats": cost.loss_in_floats,
            "same_best": cost.same_best,
        }
        show_json(
            {
                "file": str(out),
                "size_bytes": size_bytes,
                "layers": shape.layers,
                "accuracy": accuracy,
            }
        )
        return
    console.print(f"made {safe(str(out))} ({size(size_bytes)}): {shape.layers} layers")
    rows = [
        ("loss of the float model, nats a token", f"{cost.loss_in_floats:.4f}"),
        ("loss of the exact model", f"{cost.loss:.4f}"),
        ("what it cost", f"{cost.loss - cost.loss_in_floats:+.4f}"),
        ("likeliest token the same", f"{cost.same_best:.1%}"),
    ]
    show_table(
        f"beside the float model, on {plural(cost.tokens, 'token')} of text",
        ("what", ""),
        rows,
    )
    console.print(hint(f"serve it: python -m node join --role infer --model {safe(str(out))}"))
