"""The rooms of the package: their order, their contents, and the pages that show them."""

import ast
from collections import Counter
from functools import cache

import pytest

import architecture
import rules_picture

FLOORS = (*architecture.BASE, *architecture.ROOMS, *architecture.TOP)


@cache
def modules() -> dict[str, ast.Module]:
    """The modules of the package by their paths."""
    package = architecture.PACKAGE
    return {
        path.relative_to(package).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
    }


@pytest.mark.parametrize("path", architecture.sources(), ids=lambda path: path.stem)
def test_imports_point_downward(path):
    """Those for types, too."""
    floor = FLOORS.index(architecture.room(path))
    assert {name for name in architecture.imported(path) if FLOORS.index(name) > floor} == set()


def test_the_package_has_its_rooms_and_the_modules_of_its_root():
    names = {name.partition("/")[0] for name in modules()}
    root = {f"{name}.py" for name in ("__init__", *architecture.BASE, *architecture.TOP)}
    assert names == {*architecture.ROOMS, *root}


def test_an_init_is_a_docstring():
    """Except that of the solver, which is a library by itself."""
    for name, tree in modules().items():
        if name.endswith("/__init__.py") and name != "ode/__init__.py":
            (docstring,) = tree.body
            assert isinstance(docstring, ast.Expr), name


def test_names_of_classes_are_unique():
    nodes = [node for tree in modules().values() for node in tree.body]
    names = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_private_function_exists_twice():
    functions = (
        n for tree in modules().values() for n in tree.body if isinstance(n, ast.FunctionDef)
    )
    bodies = Counter(
        (node.name, ast.dump(ast.Module(node.body, [])))
        for node in functions
        if node.name.startswith("_")
    )
    assert [name for (name, _), count in bodies.items() if count > 1] == []


def test_the_page_is_up_to_date():
    page = architecture.PAGE.read_text(encoding="utf-8")
    assert page == architecture.render(), "run make docs"


def test_the_picture_shows_the_rules():
    picture = rules_picture.PICTURE.read_text(encoding="utf-8")
    assert picture == rules_picture.svg(rules_picture.graph()), "run make docs"


def test_an_edge_that_follows_from_others_is_left_out():
    dot = '0[label = "all"', '1[label = "a"', '2[label = "b"', '3[label = "c"'
    arrows = "1 -> 2", "2 -> 3", "1 -> 3", "3 -> 3", "3 -> 0"
    assert rules_picture.edges("\n".join((*dot, *arrows))) == {("a", "b"), ("b", "c")}
