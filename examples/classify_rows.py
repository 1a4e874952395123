"""A table of texts classified: each row gets the label whose meaning is nearest to its own.

    python examples/classify_rows.py MODEL TABLE.csv|COUNT LABEL …

TABLE has a column `text`; a COUNT makes a table of so many rows first. The rows are asked in
bundles by the peer that runs on the state folder (`BATON_STATE`), in bounded memory, and it goes on
where it was if it is cut short. Every answer is checked against its receipt before it is used.
"""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

SUBJECTS = ("the river", "my bank", "a new phone", "the match", "our garden", "this recipe")
VERBS = ("was better than", "cost more than", "reminds me of", "has little to do with")


def made(path: Path, count: int) -> None:
    """A table of sentences, the same each time."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "text"])
        for number in range(count):
            one, verb = SUBJECTS[number % 6], VERBS[number // 6 % 4]
            table.writerow([number, f"{one} {verb} {SUBJECTS[number // 24 % 6]}, says {number}"])


def baton(*words: object) -> None:
    """A command of the peer that runs here."""
    command = [sys.executable, "-m", "node", *map(str, words)]
    subprocess.run(command, check=True)  # noqa: S603 - a command of our own


def vectors(model: str, table: Path) -> Iterator[np.ndarray]:
    """The vector of each row, checked; they are asked for once, and again if the table changed."""
    out = table.with_suffix(".vectors.jsonl")
    state = os.environ.get("BATON_STATE", "~/.baton")
    is_old = out.exists() and out.stat().st_mtime_ns < table.stat().st_mtime_ns
    if is_old or not out.exists():
        terms = ("--level", "signed", "--force" if is_old else "--resume", "--state", state)
        baton("ask", model, "--rows", table, "--column", "text", "--out", out, *terms)
    baton("verify", out)
    with out.open(encoding="utf-8") as lines:
        for line in lines:
            yield np.array(json.loads(line)["vector"], np.float32)


def labelled(table: Path, names: Iterable[str]) -> Counter[str]:
    """Write the table again with a column `label`; how many rows have each."""
    counts: Counter[str] = Counter()
    with (
        table.open(newline="", encoding="utf-8") as source,
        table.with_suffix(".labels.csv").open("w", newline="", encoding="utf-8") as target,
    ):
        rows = csv.DictReader(source)
        out = csv.DictWriter(target, [*(rows.fieldnames or []), "label"])
        out.writeheader()
        for row, name in zip(rows, names, strict=True):
            out.writerow({**row, "label": name})
            counts[name] += 1
    return counts


def main(model: str, what: str, *labels: str) -> None:
    table = Path(f"rows-{what}.csv" if what.isdigit() else what)
    if what.isdigit() and not table.exists():
        made(table, int(what))
    meanings = table.with_name("labels.csv")
    meanings.write_text("text\n" + "".join(f"{it}\n" for it in labels), encoding="utf-8")
    of_labels = np.stack(list(vectors(model, meanings)))
    # The vectors have length 1: the largest product is the nearest.
    nearest = (labels[int(np.argmax(of_labels @ it))] for it in vectors(model, table))
    for label, count in labelled(table, nearest).most_common():
        print(count, label)


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 4:
        print(f"{__doc__}\nusage: python {sys.argv[0]} MODEL TABLE.csv|COUNT LABEL …")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
