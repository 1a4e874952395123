"""A model that is a function, as an ONNX file: named arrays in, named arrays out."""

import os
import sys

import numpy as np

import node


def main(model: str, name: str, *numbers: str) -> None:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    row = np.array([[float(it) for it in numbers]], dtype=np.float32)
    with node.connect_blocking(address, key=os.environ.get("BATON_KEY")) as net:
        done = net.infer(model, {name: row})
    for output, values in done.outputs.items():
        print(output, values.shape, values.tolist())
    print(f"receipt {done.receipt}")


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 4:
        print(f"{__doc__}\nusage: python {sys.argv[0]} MODEL NAME NUMBER …")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
