"""Names lead to files: an attribute that is called like a file holds what that file defines."""

import ast
import re
from collections.abc import Iterator

from tests.tidy.tree import production_files, shown

# The bottom layer's files are named like the values they define, which everybody has fields of.
VALUES = "wire."


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def homes(sources: dict[str, str]) -> dict[str, str]:
    """The module of each public class, by its name; the tests hold that there is only one."""
    return {
        item.name: module_of(file)
        for file, source in sources.items()
        for item in ast.parse(source).body
        if isinstance(item, ast.ClassDef) and not item.name.startswith("_")
    }


def misleading(sources: dict[str, str]) -> list[str]:
    """Fields that are named like one file and come from another, each with its line."""
    files = {module_of(file).rpartition(".")[2] for file in sources}
    known = homes(sources)
    return [
        f"{file}:{field.lineno}: {name} is {kind} of {known[kind]}, and a file is called {name}"
        for file, source in sources.items()
        for field, name, kind in fields(ast.parse(source))
        if kind in known and not known[kind].startswith(VALUES)
        if name in files and name not in known[kind].split(".") and not is_its_type(name, kind)
    ]


def is_its_type(name: str, kind: str) -> bool:
    """Whether a field is called like its class, or by the last words of it: a config, an engine."""
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
    return words == name or words.endswith(f"_{name}")


def fields(tree: ast.Module) -> Iterator[tuple[ast.AnnAssign, str, str]]:
    """Each annotated field of a class: where it is, its name, and the name of its type."""
    for parent in ast.walk(tree):
        if isinstance(parent, ast.ClassDef):
            for item in parent.body:
                match item:
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id=kind)):
                        yield item, name.lstrip("_"), kind
                    case _:
                        pass


def test_an_attribute_that_is_called_like_a_file_comes_from_it() -> None:
    sources = {shown(path): path.read_text(encoding="utf-8") for path in production_files()}
    found = misleading(sources)
    assert not found, "\n" + "\n".join(found)


def test_an_attribute_that_points_at_the_wrong_file_is_found() -> None:
    sources = {
        "node/serving/serving.py": '"""A."""\nclass Server: ...\n',
        "node/peer.py": '"""B."""\nclass Loader: ...\nclass Node:\n    serving: Loader\n',
    }
    assert len(misleading(sources)) == 1
    assert misleading(sources | {"node/peer.py": "class Node:\n    serving: Server\n"}) == []
