"""A folder kept searchable: vectors lie in a file beside the texts, and only what changed is
embedded again."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

import node

KEPT = ".vectors.npz"
TEXT_CHARS_MAX = 8000


def main(model: str, folder: str, question: str) -> None:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    texts = {
        path.name: path.read_text(errors="replace")[:TEXT_CHARS_MAX]
        for path in sorted(Path(folder).glob("*.txt"))
    }
    # A vector belongs to a text and a model, whatever the file is called.
    keys = {
        name: hashlib.sha256(f"{model}\0{text}".encode()).hexdigest()
        for name, text in texts.items()
    }
    kept = _kept(Path(folder, KEPT))
    new = [name for name, key in keys.items() if key not in kept]
    with node.connect_blocking(address, key=os.environ.get("BATON_KEY")) as net:
        if new:
            made = net.embed(model, [texts[it] or " " for it in new]).vectors
            kept |= {keys[name]: row for name, row in zip(new, made, strict=True)}
        asked = net.embed(model, question).vectors[0]
    np.savez(Path(folder, KEPT), **{key: kept[key] for key in keys.values()})
    print(f"{len(new)} of {len(texts)} texts embedded now")
    for score, name in sorted(((kept[key] @ asked, name) for name, key in keys.items()))[::-1]:
        print(f"{score:.3f}  {name}")


def _kept(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path) as found:
        return {key: found[key] for key in found.files}


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 4:
        print(f"{__doc__}\nusage: python {sys.argv[0]} MODEL FOLDER QUESTION")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
