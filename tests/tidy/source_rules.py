"""The house rules for one production file, as pure functions over its syntax tree.

Every finding says where, which rule, and what to write instead. Nothing is read from disk here,
so each rule can be shown a file that breaks it.
"""

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 8

OWN_PACKAGES = frozenset({"wire", "store", "p2p", "node"})
EMPTY_NAMES = frozenset({"utils", "util", "helpers", "helper", "manager", "managers", "common"})

_CLOCK = "an injected clock for what crosses the wire, trio.current_time() for intervals"
_CHANCE = "the injected random.Random"
_SETTING = "a field of the configuration, read once in node/__main__.py"
# A name ending in a dot stands for everything below it.
BANNED = {
    "time.time": _CLOCK,
    "time.time_ns": _CLOCK,
    "datetime.datetime.now": _CLOCK,
    "datetime.datetime.utcnow": _CLOCK,
    "datetime.datetime.today": _CLOCK,
    "datetime.date.today": _CLOCK,
    "time.sleep": "trio.sleep, or an event with a deadline",
    "random.": _CHANCE,
    "secrets.": _CHANCE,
    "uuid.": _CHANCE,
    "os.urandom": _CHANCE,
    "os.getrandom": _CHANCE,
    "numpy.random.": _CHANCE,
    "os.environ": _SETTING,
    "os.environb": _SETTING,
    "os.getenv": _SETTING,
    "asyncio.": "trio",
    "pickle.": "wire.codec: what is loaded from outside must not be able to run",
    "marshal.": "wire.codec: what is loaded from outside must not be able to run",
}
# Types and seeded generators: repeatable, so nothing against them, unless made without a seed.
SEEDED = frozenset({"random.Random", "numpy.random.Generator", "numpy.random.default_rng"})

# The files in which the seams are built: the only places where the world is touched directly.
# In these tables, a name ending in a slash stands for a whole folder.
ASSEMBLY = {
    "node/__main__.py": "builds the clock, the randomness and the configuration, once",
}
# (file, banned name as it stands above): why this one file may use it all the same.
LICENSED: dict[tuple[str, str], str] = {
    ("node/engines/worker/graph_cache.py", "pickle."): (
        "a captured graph has no other form; only files that this user's own workers wrote, with a"
        " digest, are read, and never anything that came from a peer"
    ),
}
# Where a person is spoken to.
MAY_PRINT = {
    "node/__main__.py": "the command line",
    "node/commands/": "what each command shows",
}
# (file, function): why a foreign library leaves no other way. Best kept empty.
BROAD_EXCEPT = {
    ("node/gateway/http_server.py", "_contained"): (
        "whatever a client's bytes cause, in a library or in our own code, ends its connection and"
        " nothing else; it is counted by kind and shown in `status`"
    ),
    ("node/gateway/batch_runner.py", "_ask"): (
        "whatever one line of a batch causes is the answer of that line, as a request's own is"
        " over HTTP; else it would end the gateway, at each start again"
    ),
    ("node/__main__.py", "main"): (
        "the end of every command: what no other line expected ends it in one line, as a bug"
    ),
    ("p2p/home_router.py", "_said"): (
        "miniupnpc raises a bare Exception for whatever a router answers, and knows no other"
    ),
    ("p2p/over_libp2p/errors.py", "contained"): (
        "hostile bytes surface from libp2p as any exception at all, and one that escapes a task of"
        " its services ends every connection of the process"
    ),
    ("node/engines/worker/tokenizer.py", "tokenizer_of"): (
        "tokenizers raises a bare Exception for every file it cannot read"
    ),
}

# A foreign library is imported by the module named, or any module inside it.
DOORS = {
    "ezkl": "node.engines.proving.worker",
    "lmdb": "store.on_lmdb",
    "libp2p": "p2p.over_libp2p",
    "multiaddr": "p2p.over_libp2p",
    "tinygrad": "node.engines.worker",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule at one line; `instead` completes the sentence "write ... instead"."""

    file: str
    line: int
    rule: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}; instead: {self.instead}"


def findings(file: str, source: str) -> list[Finding]:
    """Everything wrong with the production file `file` (relative, with slashes)."""
    tree = ast.parse(source, filename=file)
    rules = (_shape, _functions, _names_of_the_world, _prints, _broad_excepts, _imports)
    return sorted(
        [*_text(file, source), *(found for rule in rules for found in rule(file, tree))],
        key=lambda found: found.line,
    )


@functools.lru_cache(maxsize=1)
def _nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """All nodes of one file, walked to once for all rules."""
    return tuple(ast.walk(tree))


def is_listed(file: str, table: Iterable[str]) -> bool:
    """Whether a table names this file, or a folder it lies in."""
    return any(file == name or (name.endswith("/") and file.startswith(name)) for name in table)


def _text(file: str, source: str) -> Iterator[Finding]:
    lines = source.splitlines()
    if len(lines) > FILE_LINES_MAX:
        rule = f"{len(lines)} lines, at most {FILE_LINES_MAX}"
        yield Finding(file, len(lines), rule, "two files, each named by what is in it")
    for number, line in enumerate(lines, start=1):
        if marker := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield Finding(
                file, number, f"a {marker[1]} left behind", "the thing itself, or nothing"
            )


def _shape(file: str, tree: ast.Module) -> Iterator[Finding]:
    if not (ast.get_docstring(tree) or "").strip():
        yield Finding(file, 1, "no module docstring", "what this is, and what it refuses to do")
    if EMPTY_NAMES.intersection(re.split(r"[/.]", file)):
        yield Finding(file, 1, "a file name that says nothing", "a name for what is in it")


def _functions(file: str, tree: ast.Module) -> Iterator[Finding]:
    methods = {
        id(item)
        for parent in _nodes(tree)
        if isinstance(parent, ast.ClassDef)
        for item in parent.body
        if not _is_static(item)
    }
    for item in _nodes(tree):
        if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (item.end_lineno or item.lineno) - item.lineno + 1
        if length > FUNCTION_LINES_MAX:
            rule = f"{item.name}() has {length} lines, at most {FUNCTION_LINES_MAX}"
            yield Finding(file, item.lineno, rule, "functions that each do one thing")
        arguments = item.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        count -= id(item) in methods
        if count > PARAMETERS_MAX and not _is_command(item):
            rule = f"{item.name}() has {count} parameters, at most {PARAMETERS_MAX}"
            yield Finding(file, item.lineno, rule, "a frozen record for those that belong together")


def _is_command(item: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether its parameters are the options of a command, as many as a person may give."""
    return any(
        isinstance(mark, ast.Call) and ast.unparse(mark.func) == "click.command"
        for mark in item.decorator_list
    )


def _is_static(item: ast.stmt) -> bool:
    return isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and any(
        isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in item.decorator_list
    )


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """What each local name stands for: `from time import time as now` gives now: time.time."""
    known = {}
    for item in _nodes(tree):
        if isinstance(item, ast.Import):
            for alias in item.names:
                root = alias.name.partition(".")[0]
                known[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(item, ast.ImportFrom) and not item.level and item.module:
            for alias in item.names:
                known[alias.asname or alias.name] = f"{item.module}.{alias.name}"
    return known


def _dotted(item: ast.expr, known: dict[str, str]) -> str:
    """The full name an expression stands for, or "" when it is no imported name."""
    match item:
        case ast.Name():
            return known.get(item.id, "")
        case ast.Attribute():
            owner = _dotted(item.value, known)
            return f"{owner}.{item.attr}" if owner else ""
        case _:
            return ""


def _instead_of(file: str, name: str) -> str | None:
    if name in SEEDED:
        return None
    for banned, instead in BANNED.items():
        if name == banned or (banned.endswith(".") and name.startswith(banned)):
            return None if (file, banned) in LICENSED else instead
    return None


def _names_of_the_world(file: str, tree: ast.Module) -> Iterator[Finding]:
    if is_listed(file, ASSEMBLY):
        return
    known = _imported_names(tree)
    for item in _nodes(tree):
        if isinstance(item, ast.Attribute | ast.Name):
            name = _dotted(item, known)
            if instead := _instead_of(file, name):
                yield Finding(file, item.lineno, name, instead)
        elif isinstance(item, ast.Call) and not item.args and not item.keywords:
            name = _dotted(item.func, known)
            if name in SEEDED:
                yield Finding(file, item.lineno, f"{name}() without a seed", _CHANCE)
        elif isinstance(item, ast.ImportFrom) and any(alias.name == "*" for alias in item.names):
            yield Finding(file, item.lineno, "a star import", "the names that are used")


def _prints(file: str, tree: ast.Module) -> Iterator[Finding]:
    if is_listed(file, MAY_PRINT):
        return
    for item in _nodes(tree):
        if (
            isinstance(item, ast.Call)
            and isinstance(item.func, ast.Name)
            and item.func.id == "print"
        ):
            yield Finding(file, item.lineno, "print()", "a value for the command line to show")


def _broad_excepts(file: str, tree: ast.Module) -> Iterator[Finding]:
    for function, item in _with_function(tree, ""):
        if (file, function) in BROAD_EXCEPT:
            continue
        match item:
            case ast.ExceptHandler(type=None):
                caught = "a bare except"
            case ast.ExceptHandler(type=ast.expr() as kinds) if _is_broad(kinds):
                caught = f"except {ast.unparse(kinds)}"
            case ast.Call(func=called, args=kinds) if ast.unparse(called).endswith(
                "suppress"
            ) and any(map(_is_broad, kinds)):
                caught = ast.unparse(item)
            case _:
                continue
        yield Finding(file, item.lineno, caught, "the errors that can happen here, by name")


def _is_broad(kinds: ast.expr) -> bool:
    return any(
        isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}
        for kind in (kinds.elts if isinstance(kinds, ast.Tuple) else [kinds])
    )


def _with_function(item: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node below `item`, with the name of the function it stands in."""
    for child in ast.iter_child_nodes(item):
        yield function, child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _with_function(child, child.name)
        else:
            yield from _with_function(child, function)


def _imports(file: str, tree: ast.Module) -> Iterator[Finding]:
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    package = module.partition(".")[0]
    for item in _nodes(tree):
        if isinstance(item, ast.Import):
            names = [alias.name for alias in item.names]
        elif isinstance(item, ast.ImportFrom) and not item.level and item.module:
            names = [f"{item.module}.{alias.name}" for alias in item.names]
        else:
            continue
        for name in names:
            library, *parts = name.split(".")
            door = DOORS.get(library)
            if door and module != door and not module.startswith(f"{door}."):
                yield Finding(file, item.lineno, f"imports {library}", f"what {door} offers")
            private = [part for part in parts if part.startswith("_") and part != "__main__"]
            if library in OWN_PACKAGES - {package} and private:
                rule = f"reaches for {name} of another package"
                yield Finding(file, item.lineno, rule, f"a public name of {library}")
