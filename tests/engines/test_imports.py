"""The engines run where neither the network nor the store is installed, and load no model library
before a worker is asked for."""

import subprocess
import sys

PROGRAM = """
import sys
import node.engines.host.engine, node.engines.hash_engine
import node.engines.compare, node.engines.formats.minilm
# Waits for a worker are stretched as waits for a peer are: that is all of p2p that is used here.
used = {it for it in sys.modules if it.startswith("p2p.") and not it.startswith("p2p.timeouts")}
barred = {"libp2p", "lmdb", "store", "tinygrad", "tokenizers"}
print(sorted(used | barred & set(sys.modules)))
"""


def test_the_engines_import_neither_network_nor_store_nor_tinygrad() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
