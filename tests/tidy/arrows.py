"""What imports and names say of the shape of the four packages; prints it, judges nothing.

`python -m tests.tidy.arrows [--root DIR] [--json]` looks at this checkout, or at another. A room is
a folder, or a file that lies flat in `node/`; an arrow is an import from one room to another,
wherever in the file it stands; a circle is a set of rooms that reach each other.
"""

import argparse
import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tidy.tree import PACKAGES, ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef
FLAT_FOLDERS = ("node", "node/engines")
# Methods of the language's own types: a call of one of these says nothing about whose it is.
COMMON_METHODS = frozenset(
    name
    for kind in (dict, list, set, str, bytes, bytearray, int, float, tuple, memoryview, Path)
    for name in dir(kind)
)


@dataclass(slots=True)
class Tree:
    """The parsed files of a checkout, by module name."""

    files: dict[str, Path]
    modules: dict[str, ast.Module]
    imports: dict[str, frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.imports = {
            module: frozenset(self._imported(tree)) for module, tree in self.modules.items()
        }

    def _imported(self, tree: ast.Module) -> Iterator[str]:
        for item in ast.walk(tree):
            if isinstance(item, ast.Import):
                yield from (alias.name for alias in item.names if alias.name in self.modules)
            elif isinstance(item, ast.ImportFrom) and item.module:
                for alias in item.names:
                    inner = f"{item.module}.{alias.name}"
                    found = inner if inner in self.modules else item.module
                    if found in self.modules:
                        yield found

    def is_package(self, module: str) -> bool:
        """Whether a module is a folder's `__init__.py`."""
        return self.files[module].name == "__init__.py"

    def folder(self, module: str) -> str:
        """The package that a module lies in, or is."""
        return module if self.is_package(module) else module.rpartition(".")[0]

    def room(self, module: str) -> str:
        """The folder of a module; the module itself where it lies flat in `node`."""
        return module if self.folder(module) == "node" else self.folder(module)


def read_tree(root: Path) -> Tree:
    """Parse every production file below `root`; OSError or SyntaxError if one cannot be."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    modules = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    return Tree(files, modules)


def arrows(tree: Tree) -> set[tuple[str, str]]:
    """Every pair (room that imports, room that is imported)."""
    pairs = {
        (tree.room(module), tree.room(found))
        for module, imported in tree.imports.items()
        for found in imported
    }
    return {(one, other) for one, other in pairs if one != other}


def circles(pairs: set[tuple[str, str]]) -> list[list[str]]:
    """The sets of rooms that reach each other, each sorted; none if imports point one way."""
    onward: dict[str, set[str]] = defaultdict(set)
    for one, other in pairs:
        onward[one].add(other)
    reached = {room: _reached(room, onward) for room in list(onward)}
    found = {
        frozenset(other for other in all_of if room in reached.get(other, ())) | {room}
        for room, all_of in reached.items()
        if room in all_of
    }
    return sorted(map(sorted, found))


def _reached(start: str, onward: Mapping[str, set[str]]) -> set[str]:
    """Every room that can be reached from one by at least one arrow."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for room in onward.get(waiting.pop(), ()):
            if room not in found:
                found.add(room)
                waiting.append(room)
    return found


def class_homes(tree: Tree) -> dict[str, list[str]]:
    """The public class names that stand in more than one module, with those modules."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, parsed in tree.modules.items():
        for item in parsed.body:
            if isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
                homes[item.name].append(module)
    return {name: found for name, found in sorted(homes.items()) if len(found) > 1}


def public_functions(tree: Tree) -> list[tuple[str, str, Function]]:
    """Every public function and method as (module, name with its class, syntax)."""
    return [
        (module, name, item)
        for module, parsed in tree.modules.items()
        for name, item in _functions(parsed)
    ]


def _functions(parsed: ast.Module) -> Iterator[tuple[str, Function]]:
    for item in parsed.body:
        if isinstance(item, Function) and not item.name.startswith("_"):
            yield item.name, item
        elif isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
            for inner in item.body:
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    yield f"{item.name}.{inner.name}", inner


def undocumented(tree: Tree) -> list[str]:
    """`module:function` of each public function without a docstring of its own."""
    return [
        f"{module}:{name}"
        for module, name, item in public_functions(tree)
        if not ast.get_docstring(item)
    ]


def called_elsewhere(tree: Tree) -> list[tuple[str, str, Function]]:
    """The public functions that another package calls.

    A function counts if another package imports it. A method counts if another package calls a
    method of that name, unless the language's own types have one too: whose it is, syntax does
    not say.
    """
    taken, called = _uses(tree)
    return [
        (module, name, item)
        for module, name, item in public_functions(tree)
        if (called[item.name] if "." in name else taken[module, name]) - {tree.folder(module)}
        and not any(ast.unparse(mark) == "property" for mark in item.decorator_list)
    ]


def unpromised(tree: Tree) -> list[str]:
    """`module:function` of each function that another package calls and nothing says what it does.

    A method is also documented where its base class, or a protocol that its class has every name
    of, documents it: the promise is made once. What extends a class of a library keeps its promise.
    """
    classes = _classes(tree)
    promises = _promises(classes)
    return [
        f"{module}:{name}"
        for module, name, item in called_elsewhere(tree)
        if not ast.get_docstring(item)
        and not ("." in name and _inherits(tree, promises, module, name, classes))
    ]


def _inherits(
    tree: Tree,
    promises: Mapping[str, "Promise"],
    module: str,
    name: str,
    classes: Mapping[tuple[str, str], ast.ClassDef],
) -> bool:
    kind_name, _, method = name.partition(".")
    kind = classes[module, kind_name]
    bases, members = _bases(kind), _members(kind)
    return _extends_library(kind, tree.modules[module]) or any(
        method in promise.documented
        and (base in bases or (promise.is_protocol and promise.members <= members))
        for base, promise in promises.items()
    )


@dataclass(frozen=True, slots=True)
class Promise:
    """The members of a class, and which of them have a docstring."""

    members: set[str]
    documented: set[str]
    is_protocol: bool


def _promises(classes: Mapping[tuple[str, str], ast.ClassDef]) -> dict[str, Promise]:
    return {
        name: Promise(
            _members(kind),
            {it.name for it in kind.body if isinstance(it, Function) and ast.get_docstring(it)},
            "Protocol" in _bases(kind),
        )
        for (_, name), kind in classes.items()
    }


def _classes(tree: Tree) -> dict[tuple[str, str], ast.ClassDef]:
    return {
        (module, item.name): item
        for module, parsed in tree.modules.items()
        for item in parsed.body
        if isinstance(item, ast.ClassDef)
    }


def _members(kind: ast.ClassDef) -> set[str]:
    """The methods and the fields of a class, those set in `__init__` as well."""
    found = {item.name for item in kind.body if isinstance(item, Function)}
    for item in ast.walk(kind):
        match item:
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.add(name)
            case _:
                pass
    return found - {"__init__"}


def _bases(kind: ast.ClassDef) -> set[str]:
    """The names of its bases, without what stands before a dot or in brackets."""
    return {ast.unparse(it).partition("[")[0].rpartition(".")[2] for it in kind.bases}


def _extends_library(kind: ast.ClassDef, parsed: ast.Module) -> bool:
    """Whether one of its bases was imported from a package that is neither ours nor Python's."""
    known = {*PACKAGES, *sys.stdlib_module_names}
    foreign = set()
    for item in ast.walk(parsed):
        if isinstance(item, ast.Import | ast.ImportFrom):
            module = item.module or "" if isinstance(item, ast.ImportFrom) else ""
            for alias in item.names:
                if (module or alias.name).partition(".")[0] not in known:
                    foreign.add(alias.asname or alias.name)
    return any(re.split(r"[.\[]", ast.unparse(base))[0] in foreign for base in kind.bases)


def _uses(tree: Tree) -> tuple[dict[tuple[str, str], set[str]], dict[str, set[str]]]:
    """Which packages import each (module, function), and which call a method of each name."""
    taken: dict[tuple[str, str], set[str]] = defaultdict(set)
    called: dict[str, set[str]] = defaultdict(set)
    for module, parsed in tree.modules.items():
        folder = tree.folder(module)
        for item in ast.walk(parsed):
            if isinstance(item, ast.ImportFrom) and item.module:
                for alias in item.names:
                    taken[item.module, alias.name].add(folder)
            elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
                if item.func.attr not in COMMON_METHODS:
                    called[item.func.attr].add(folder)
                if isinstance(item.func.value, ast.Name):
                    # `frames.pack(...)`, where the module itself was imported.
                    for found in tree.imports[module]:
                        if found.rpartition(".")[2] == item.func.value.id:
                            taken[found, item.func.attr].add(folder)
    return taken, called


def loops_with_it(tree: Tree) -> list[str]:
    """`module:line` of each `for it in` whose body is more than one line."""
    return [
        f"{module}:{item.lineno}"
        for module, parsed in tree.modules.items()
        for item in ast.walk(parsed)
        if isinstance(item, ast.For | ast.AsyncFor)
        and any(isinstance(part, ast.Name) and part.id == "it" for part in ast.walk(item.target))
        and (item.body[-1].end_lineno or 0) > item.body[0].lineno
    ]


def shape_of(tree: Tree) -> dict[str, Any]:
    """The figures of a checkout, as `--json` prints them; shares are between 0 and 1."""
    pairs = arrows(tree)
    rooms = {tree.room(module) for module in tree.modules if not tree.is_package(module)}
    every, bare = public_functions(tree), undocumented(tree)
    elsewhere, unknown = called_elsewhere(tree), unpromised(tree)
    return {
        "files": len(tree.files),
        "files_flat": {folder: _flat(tree, folder) for folder in FLAT_FOLDERS},
        "rooms": len(rooms),
        "arrows": len(pairs),
        "circles": circles(pairs),
        "classes_with_several_homes": class_homes(tree),
        "functions": len(every),
        "functions_without_docstring": len(bare),
        "functions_without_docstring_share": round(len(bare) / max(1, len(every)), 3),
        "functions_called_elsewhere": len(elsewhere),
        "functions_called_elsewhere_undocumented": unknown,
        "functions_called_elsewhere_undocumented_share": round(
            len(unknown) / max(1, len(elsewhere)), 3
        ),
        "loops_with_it": loops_with_it(tree),
    }


def _flat(tree: Tree, folder: str) -> int:
    package = folder.replace("/", ".")
    return sum(
        tree.folder(module) == package and not tree.is_package(module) for module in tree.modules
    )


def main(words: list[str]) -> int:
    """Print the figures; with `--json` also what each is made of."""
    parser = argparse.ArgumentParser("python -m tests.tidy.arrows", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to look at")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    typed = parser.parse_args(words)
    shape = shape_of(read_tree(typed.root))
    if typed.json:
        print(json.dumps(shape, indent=2))
        return 0
    for name, value in shape.items():
        match value:
            case dict() if name == "files_flat":
                print(name, *(f"{folder}/ {count}" for folder, count in value.items()))
            case dict():
                print(name, len(value), *value)
            case list() if name == "circles":
                print(name, len(value), *(" <-> ".join(it) for it in value))
            case list():
                print(name, len(value))
            case _:
                print(name, value)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
