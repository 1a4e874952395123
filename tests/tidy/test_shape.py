"""The shape of the four packages as `tests.tidy.arrows` counts it: what may not come back."""

import ast
import configparser
import re
from functools import cache

from tests.tidy.arrows import Tree, circles, class_homes, loops_with_it, read_tree, unpromised
from tests.tidy.arrows import arrows as arrows_of
from tests.tidy.tree import ROOT


@cache
def tree() -> Tree:
    """Read only where a test of this file runs, not wherever the file is collected."""
    return read_tree(ROOT)


def pure_modules() -> list[str]:
    """The modules whose docstring says "pure"; all of `wire` has a contract of its own."""
    return sorted(
        module
        for module, parsed in tree().modules.items()
        if re.search(r"\bpure\b", ast.get_docstring(parsed) or "", re.IGNORECASE)
        and not module.startswith("wire")
    )


def test_no_two_rooms_import_each_other_not_even_by_way_of_others() -> None:
    assert circles(arrows_of(tree())) == []


def test_a_public_class_name_has_one_home() -> None:
    found = class_homes(tree())
    assert not found, f"{found}; instead: a name that says which of them it is"


def test_a_function_that_another_package_calls_says_what_it_does() -> None:
    found = unpromised(tree())
    assert not found, "no docstring says what this gives, takes or raises:\n" + "\n".join(found)


def test_it_names_what_a_loop_goes_over_only_where_its_body_is_one_line() -> None:
    found = loops_with_it(tree())
    assert not found, f"{found}; instead: the name of the thing"


def test_no_import_hides_from_the_program_that_runs() -> None:
    found = {
        module
        for module, parsed in tree().modules.items()
        for item in ast.walk(parsed)
        if isinstance(item, ast.alias) and item.name == "TYPE_CHECKING"
    }
    assert not found, f"{found}: an import hides a circle; let arrows point one way"


def test_what_calls_itself_pure_stands_in_the_contract_of_pure_cores() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / "setup.cfg")
    listed = contracts["importlinter:contract:pure-cores"]["source_modules"].split()
    assert sorted(listed) == pure_modules()
