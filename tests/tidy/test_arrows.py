"""The counter of rooms, arrows and promises counts what a small made-up checkout has."""

import json
from pathlib import Path

import pytest

from tests.tidy import arrows

FILES = {
    "wire/__init__.py": "",
    "store/__init__.py": "",
    "p2p/__init__.py": "",
    "node/__init__.py": "",
    "node/flat.py": "from node.one import thing\n\n\nclass Twice:\n    pass\n",
    "node/one/__init__.py": "",
    "node/one/thing.py": (
        "from typing import Protocol\n\n\n"
        "class Twice:\n    pass\n\n\n"
        'class Seam(Protocol):\n    def give(self):\n        """What it promises."""\n\n\n'
        "def used():\n    from node.two import other\n    return other\n\n\n"
        'def said():\n    """What it does."""\n\n\n'
        "def unused():\n    pass\n"
    ),
    "node/two/__init__.py": "",
    "node/two/other.py": (
        "import trio\n\nfrom node.one.thing import said, used\n\n\n"
        "class Gives:\n    def give(self):\n        return 1\n\n"
        "    def keep(self):\n        return 2\n\n\n"
        "class Stream(trio.abc.Stream):\n    def keep(self):\n        return 3\n\n\n"
        "def loop(items):\n    for it in items:\n        used(it)\n        said(it)\n"
        "    for it in items:\n        used(it)\n"
    ),
    "node/three/__init__.py": "",
    "node/three/user.py": (
        "def run(gives):\n    gives.give()\n    gives.keep()\n    gives.append(1)\n"
    ),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_small_checkout_is_counted(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert arrows.main(["--root", str(checkout), "--json"]) == 0
    shape = json.loads(capsys.readouterr().out)
    assert shape["files_flat"] == {"node": 1, "node/engines": 0}
    assert shape["rooms"] == 4
    assert shape["arrows"] == 3
    # An import inside a function makes a circle like any other.
    assert shape["circles"] == [["node.one", "node.two"]]
    assert shape["classes_with_several_homes"] == {"Twice": ["node.flat", "node.one.thing"]}
    assert shape["loops_with_it"] == ["node.two.other:20"]


def test_only_what_another_package_calls_and_nothing_promises_has_to_be_documented(
    checkout: Path,
) -> None:
    tree = arrows.read_tree(checkout)
    # Not `unused`, which nobody calls; not `Gives.give`, which the protocol documents; not
    # `Stream.keep`, whose promise is its library's.
    assert arrows.unpromised(tree) == ["node.one.thing:used", "node.two.other:Gives.keep"]
    assert "node.one.thing:unused" in arrows.undocumented(tree)


def test_for_people_it_is_a_line_for_each_figure(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert arrows.main(["--root", str(checkout)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "circles 1 node.one <-> node.two" in lines
    assert "loops_with_it 1" in lines
