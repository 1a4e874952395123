"""The project as a folder: what may lie in it, and what a package lets out of its door."""

import ast
import re
import tomllib
from pathlib import Path

from tests.tidy.tree import PACKAGES, ROOT, production_files, shown, tracked_files

PAGES = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
TOP_LEVEL = {*PACKAGES, *PAGES, "tests", "examples", "setup.cfg", "pyproject.toml", "dev"}
TOP_LEVEL |= {"Containerfile"}

# Paths of one machine: they mean nothing on another.
ELSEWHERE = re.compile(r"(?<![\w.~])/(?:work|home|Users|tmp)/\w+")
# An address other than the package index everybody has by default.
INDEX = re.compile(r"index-url|find-links|trusted-host|https?://", re.IGNORECASE)

NOT_TEXT = {".png", ".gif", ".bin", ".gguf", ".onnx", ".safetensors"}


def text_of(path: Path) -> str:
    return "" if path.suffix in NOT_TEXT else path.read_text(encoding="utf-8", errors="replace")


def lock_of(name: str) -> dict[str, list[str]]:
    """The hashes a lock gives for each name it pins."""
    text = (ROOT / ".ci" / name).read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.partition("==")[0]: re.findall(r"--hash=sha256:\w{64}", line) for line in lines}


def test_the_top_level_is_closed() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    strangers = sorted(name for name in top - TOP_LEVEL if not name.startswith("."))
    assert not strangers, f"{strangers} at the top level; instead: a place inside one of {PACKAGES}"


def test_pages_at_the_top_link_to_what_is_there() -> None:
    for page in sorted(PAGES - {"LICENSE"}):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{page} links to {target}, which is not there"


def test_no_file_speaks_of_one_persons_machine() -> None:
    # This folder spells out what it looks for.
    found = [
        f"{shown(path)}:{number}: {match[0]}; instead: a relative path, or tmp_path in a test"
        for path in tracked_files()
        if path.parent != Path(__file__).parent
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if (match := ELSEWHERE.search(line))
    ]
    assert not found, "\n" + "\n".join(found)


def test_a_path_of_one_persons_machine_is_found_and_a_part_of_another_path_is_not() -> None:
    assert ELSEWHERE.search("see /home/ada/notes")
    assert ELSEWHERE.search('open("/tmp/x")')
    assert not ELSEWHERE.search("https://example.org/home/page and node/work/x")


def exported(source: str) -> tuple[list[str], list[str]]:
    """What an __init__ says it exports, and what it makes public: own imports, own names."""
    said: list[str] = []
    public: list[str] = []
    for item in ast.parse(source).body:
        match item:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                said = list(ast.literal_eval(value))
            case ast.Assign(targets=targets):
                public += [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                public.append(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                public.append(name)
            case ast.ClassDef(name=name):
                public.append(name)
            case ast.ImportFrom(module=module, level=level, names=names):
                if level or (module or "").partition(".")[0] in PACKAGES:
                    public += [alias.asname or alias.name for alias in names]
            case _:
                pass
    return said, [name for name in public if not name.startswith("_")]


def test_what_a_package_exports_is_exactly_what_its_door_says() -> None:
    for path in production_files():
        if path.name == "__init__.py":
            said, public = exported(path.read_text(encoding="utf-8"))
            assert sorted(said) == sorted(public), f"{shown(path)}: __all__ is not what is there"


def test_a_door_that_says_too_much_or_too_little_is_found() -> None:
    assert exported("from store.seam import Store\n__all__ = []\n") == ([], ["Store"])
    assert exported("import trio\n__all__ = ['gone']\n") == (["gone"], [])


def test_every_package_is_built_into_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    built = set(project["tool"]["setuptools"]["packages"])
    there = {shown(path.parent).replace("/", ".") for path in production_files()}
    assert built == there, f"pyproject.toml lists {sorted(built)}, the files say {sorted(there)}"


def test_the_lock_pins_everything_the_project_asks_for_and_hashes_all_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    lock = lock_of("requirements.lock")
    unpinned = [line for line in asked if re.split(r"[<>=~!\[; ]", line)[0] not in lock]
    assert not unpinned, f"{unpinned} not in .ci/requirements.lock; its top says how to make it"
    for name, hashes in {**lock, **lock_of("build.lock")}.items():
        assert hashes, f"{name} is locked without a hash"


def test_nothing_is_installed_from_anywhere_but_the_default_index() -> None:
    for path in [ROOT / "dev", *(ROOT / ".ci").iterdir()]:
        found = INDEX.search(path.read_text(encoding="utf-8"))
        assert not found, f"{shown(path)} names a package source: {found and found[0]}"
