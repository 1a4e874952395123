"""A folder kept searchable while its files change: questions are answered from it, with passages.

Questions are lines of the standard input. Before each one, what came, changed or went in the folder
is seen, and only what is new is embedded.
"""

import os
import sys
from pathlib import Path

import numpy as np

import node
from node.ingest.local_files import files_below, states_of
from node.ingest.passages import cut

PASSAGES_SHOWN = 3
TEXTS_AT_ONCE = 64


def main(embedder: str, writer: str, folder: str) -> None:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    with node.connect_blocking(address, key=os.environ.get("BATON_KEY")) as net:
        index = FolderIndex(Path(folder), lambda texts: net.embed(embedder, texts).vectors)
        for line in sys.stdin:
            print(index.follow())
            found = index.nearest(line.strip())
            passages = "\n\n".join(f"[{name}] {text}" for name, text in found)
            prompt = f"Answer from these passages.\n\n{passages}\n\n{line.strip()}"
            for piece in net.chat(writer, prompt, max_tokens=128):
                print(piece, end="", flush=True)
            names = ", ".join(dict.fromkeys(name for name, _ in found))
            print(f"\nfrom {names or 'nothing: the folder is empty'}; receipt {piece.receipt}")


class FolderIndex:
    """The passages of a folder's files, each with its vector."""

    def __init__(self, folder: Path, embed) -> None:
        self.folder, self.embed = folder, embed
        self.states, self.passages, self.vectors = {}, {}, {}

    def follow(self) -> str:
        """See what changed since the last look, and say so."""
        files = files_below(self.folder, "")
        states = states_of(files)
        gone = self.passages.keys() - states.keys()
        changed = [name for name, state in states.items() if state != self.states.get(name)]
        for name in (*gone, *changed):
            self.passages.pop(name, None)
        for name in changed:
            try:
                # Half a letter, at the end of a file that is being written, is no reason to stop.
                self.passages[name] = cut(files[name].read_text(errors="replace"))
            except OSError:
                # It went a moment ago, or may not be read: it is looked at again the next time.
                del states[name]
        self.states = states
        texts = {text for passages in self.passages.values() for text in passages}
        self.vectors = {text: self.vectors[text] for text in texts & self.vectors.keys()}
        new = sorted(texts - self.vectors.keys())
        for first in range(0, len(new), TEXTS_AT_ONCE):
            batch = new[first : first + TEXTS_AT_ONCE]
            self.vectors |= zip(batch, self.embed(batch), strict=True)
        return f"{len(files)} files: {len(changed)} came or changed, {len(gone)} went"

    def nearest(self, question: str) -> list[tuple[str, str]]:
        """The passages that are nearest to a question, each with the name of its file."""
        rows = [(name, text) for name, texts in self.passages.items() for text in texts]
        if not rows:
            return []
        scores = np.array([self.vectors[text] for _, text in rows]) @ self.embed([question])[0]
        return [rows[at] for at in np.argsort(-scores)[:PASSAGES_SHOWN]]


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 4:
        print(f"{__doc__}\nusage: python {sys.argv[0]} EMBEDDER WRITER FOLDER")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
