"""The production code keeps the house rules, and each rule can be broken."""

import pytest

from tests.tidy import source_rules
from tests.tidy.source_rules import ASSEMBLY, MAY_PRINT, findings, is_listed
from tests.tidy.tree import production_files, shown

DOC = '"""A file for the rules to look at."""\n'


def rules_broken(body: str, file: str = "store/sample.py") -> list[str]:
    return [str(found) for found in findings(file, DOC + body)]


def test_the_production_code_keeps_the_house_rules() -> None:
    broken = [
        str(found)
        for path in production_files()
        for found in findings(shown(path), path.read_text(encoding="utf-8"))
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_every_exception_to_a_rule_gives_its_reason_and_is_still_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = {shown(path): path.read_text(encoding="utf-8") for path in production_files()}
    for table in ("BROAD_EXCEPT", "LICENSED"):
        granted: dict[tuple[str, str], str] = getattr(source_rules, table)
        for (file, what), reason in granted.items():
            rest = {key: why for key, why in granted.items() if key != (file, what)}
            kept = len(findings(file, sources.get(file, DOC)))
            with monkeypatch.context() as without:
                without.setattr(source_rules, table, rest)
                found = len(findings(file, sources.get(file, DOC)))
            assert reason.strip(), f"{table}: {file}, {what} gives no reason"
            assert found > kept, f"{table}: {file}, {what} is not needed any more; drop the line"


def test_a_licence_holds_for_one_name_in_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_rules, "LICENSED", {("store/sample.py", "os.urandom"): "a test"})
    assert rules_broken("import os\nx = os.urandom(8)\n") == []
    assert rules_broken("import os\nx = os.environ\n")
    assert rules_broken("import os\nx = os.urandom(8)\n", "store/other.py")


def test_every_place_with_a_licence_of_its_own_is_still_there() -> None:
    files = [shown(path) for path in production_files()]
    for place in [*ASSEMBLY, *MAY_PRINT]:
        assert any(is_listed(file, [place]) for file in files), f"{place} is gone; drop the line"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import time\nx = time.time()\n", "time.time"),
        ("import time as t\nx = t.time\n", "time.time"),
        ("from time import time\nx = time()\n", "time.time"),
        ("from time import sleep as nap\nnap(1)\n", "trio.sleep"),
        ("import datetime\nx = datetime.datetime.now()\n", "datetime.datetime.now"),
        ("from datetime import datetime\nx = datetime.now()\n", "datetime.datetime.now"),
        ("import random\nx = random.sample([1], 1)\n", "random.sample"),
        ("from random import choice\nx = choice([1])\n", "random.choice"),
        ("import random\nx = random.Random()\n", "without a seed"),
        ("from random import SystemRandom\nx = SystemRandom()\n", "random.SystemRandom"),
        ("import numpy as np\nx = np.random.rand(3)\n", "numpy.random.rand"),
        ("import numpy as np\nx = np.random.default_rng()\n", "without a seed"),
        ("import secrets\nx = secrets.token_bytes(8)\n", "secrets.token_bytes"),
        ("import os\nx = os.urandom(8)\n", "os.urandom"),
        ("import os\nx = os.environ['HOME']\n", "os.environ"),
        ("from os import environ\nx = environ\n", "os.environ"),
        ("import uuid\nx = uuid.uuid4()\n", "uuid.uuid4"),
        ("import asyncio\nasyncio.run(None)\n", "asyncio.run"),
        ("import pickle\nx = pickle.loads(b'')\n", "wire.codec"),
        ("print('here')\n", "print()"),
        ("from store.seam import *\n", "star import"),
        ("try:\n    x = 1\nexcept Exception:\n    x = 2\n", "except Exception"),
        ("try:\n    x = 1\nexcept (OSError, BaseException):\n    x = 2\n", "BaseException"),
        ("try:\n    x = 1\nexcept* Exception:\n    x = 2\n", "except Exception"),
        ("try:\n    x = 1\nexcept:\n    x = 2\n", "a bare except"),
        ("import contextlib\nx = contextlib.suppress(Exception)\n", "suppress(Exception)"),
        ("import lmdb\nlmdb.open('')\n", "imports lmdb"),
        ("def f():\n    from libp2p.peer import ID\n", "imports libp2p"),
        ("import tinygrad.helpers\n", "imports tinygrad"),
        ("from wire.codec import _pack\n", "wire.codec._pack"),
        ("from wire._inner import pack\n", "wire._inner.pack"),
        ("# FIXME later\n", "FIXME"),
        ("x = 1\n" * 400, "401 lines, at most 400"),
        ("def f():\n" + "    x = 1\n" * 70, "f() has 71 lines"),
        ("def f(a, b, c, d, e, /, g, h, *, i, j): ...\n", "9 parameters"),
    ],
)
def test_a_file_that_breaks_a_rule_is_found(body: str, said: str) -> None:
    broken = rules_broken(body)
    assert any(said in line for line in broken), broken
    assert all(line.startswith("store/sample.py:") for line in broken)


@pytest.mark.parametrize(
    "body",
    [
        "from random import Random\ndef f(rng: Random) -> float:\n    return rng.random()\n",
        "from random import Random\nx = Random(7)\n",
        "import time\nx = time.perf_counter()\n",
        "class Time:\n    def time(self): ...\nx = Time().time()\n",
        "try:\n    x = 1\nexcept (OSError, ValueError):\n    x = 2\n",
        "from store._rows import Row\n",
        "from wire.codec import pack\n",
        "class A:\n    def f(self, a, b, c, d, e, g, h, i): ...\n",
    ],
)
def test_a_file_that_keeps_the_rules_is_left_alone(body: str) -> None:
    assert rules_broken(body) == []


@pytest.mark.parametrize("file", ["store/utils.py", "p2p/helpers/dialing.py", "node/common.py"])
def test_a_file_name_that_says_nothing_is_found(file: str) -> None:
    assert any("says nothing" in line for line in rules_broken("", file))


def test_a_file_without_a_docstring_is_found() -> None:
    assert "no module docstring" in str(findings("store/sample.py", "x = 1\n")[0])


@pytest.mark.parametrize(
    ("file", "body"),
    [
        ("store/on_lmdb.py", "import lmdb\n"),
        ("p2p/over_libp2p/dial.py", "from multiaddr import Multiaddr\n"),
        ("p2p/over_libp2p/__init__.py", "import libp2p\n"),
        ("node/engines/worker/main.py", "from tinygrad import Tensor\n"),
    ],
)
def test_the_door_to_a_library_may_import_it(file: str, body: str) -> None:
    assert rules_broken(body, file) == []


@pytest.mark.parametrize("file", ["node/__main__.py", "node/commands/status.py"])
def test_the_command_line_may_print(file: str) -> None:
    assert rules_broken("print('here')\n", file) == []


def test_the_assembly_may_touch_the_world() -> None:
    assert rules_broken("import os\nx = os.environ, os.urandom(8)\n", "node/__main__.py") == []
