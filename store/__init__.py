"""What a peer keeps: content by its id, and small records; on disk, or in memory for simulations.

The store fetches nothing. Bytes are checked against their id on the way in and on the way out.
"""

from store.files import disk_bytes
from store.folder import is_state_folder, key_seed, open_folder
from store.in_memory import open_memory_store
from store.kept_files import id_of_file
from store.on_lmdb import open_store
from store.seam import CheckReport, Pin, Row, Statistics, Store, Table, Write

__all__ = [
    "CheckReport",
    "Pin",
    "Row",
    "Statistics",
    "Store",
    "Table",
    "Write",
    "disk_bytes",
    "id_of_file",
    "is_state_folder",
    "key_seed",
    "open_folder",
    "open_memory_store",
    "open_store",
]
