"""An answer word by word, and the receipt that proves who gave it."""

import os
import sys

import node


def main(model: str, question: str) -> None:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    with node.connect_blocking(address, key=os.environ.get("BATON_KEY")) as net:
        for piece in net.chat(model, question, max_tokens=200):
            print(piece, end="", flush=True)
    # The last piece says how the answer ended, and which receipt belongs to it.
    print(f"\n\nreceipt {piece.receipt}")


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 3:
        print(f"{__doc__}\nusage: python {sys.argv[0]} MODEL QUESTION")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
