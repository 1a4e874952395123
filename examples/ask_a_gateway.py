"""Asks a gateway for words, for vectors, and for a checked answer with its receipt.

Start a network of one machine, then run this beside it:

    python -m node join --role infer --role gateway --model hash
    python examples/ask_a_gateway.py http://127.0.0.1:8000
"""

import sys

import node


def main(address: str) -> None:
    """Print what the gateway at `address` answers; `hash` is a model made for trying things out."""
    with node.connect_blocking(address) as net:
        for piece in net.chat("hash", "hello", max_tokens=4):
            print(piece, end="")
        print()
        found = net.embed("hash", ["one text", "another text"])
        print(f"{len(found.vectors)} vectors of {len(found.vectors[0])} numbers")
        print(f"receipt {found.receipt}")


if __name__ == "__main__":
    if "--help" in sys.argv:
        print(f"{__doc__}\nusage: python {sys.argv[0]} [ADDRESS]")
        sys.exit("--help" not in sys.argv)
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
