"""Texts as vectors, and which of them is nearest to a question."""

import os
import sys

import node


def main(model: str, question: str, *texts: str) -> None:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    with node.connect_blocking(address, key=os.environ.get("BATON_KEY")) as net:
        vectors = net.embed(model, [question, *texts]).vectors
    # Vectors have the length one, so a product of two is the cosine of the angle between them.
    scores = vectors[1:] @ vectors[0]
    for score, text in sorted(zip(scores, texts, strict=True), reverse=True):
        print(f"{score:.3f}  {text}")


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 4:
        print(f"{__doc__}\nusage: python {sys.argv[0]} MODEL QUESTION TEXT …")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
