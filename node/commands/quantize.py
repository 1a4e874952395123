"""`models quantize`: an integer model from a float one, and what it cost in accuracy."""

from pathlib import Path

import trio

from node.commands.output import console, safe, show_json, show_table, size
from node.models.exact_models import make_exact


async def quantize(model: Path, out: Path, calibration: Path | None, *, as_json: bool) -> None:
    """Make the file and say how far its answers are from the float model's; InputError."""
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
    console.print(f"serve it: python -m node join --role infer --model {safe(str(out))}")
