"""The Python file of an own model: where it is, and what it says before it runs.

Snakemake parses the workflow in every job and with it this module, so it must import quickly (no
torch), and it never runs the user's code.
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from node_robustness.code import digest
from node_robustness.errors import UserError
from node_robustness.words import listed

GIVEN = ("channels", "classes")
"""The arguments, of the dataset, that a model is given where its signature has them."""

_SETTER = "set_tolerance"
_SOLVERS = {"torchdiffeq", "node_robustness", "node-robustness"}
"""Libraries whose `odeint` is intercepted, by the names in a digest."""


@dataclass(frozen=True)
class ModelFile:
    """A file from which a model is built.

    Attributes:
        path: the file.
        root: the folder in which the names that it imports are looked for.
        package: the package that the file is a module of; None if it was named by its path.
    """

    path: Path
    root: Path
    package: str | None = None

    def code(self) -> dict[str, str]:
        """The digest of each file that it uses and the versions of libraries, by name.

        Raises:
            UserError: a file is not Python code.
        """
        try:
            return digest.of_module(self.path, self.root, self.package)
        except SyntaxError as error:
            line = "" if error.lineno is None else f", line {error.lineno}"
            file = error.filename or self.path
            raise UserError(f"{file}{line}: {error.msg}: correct the file") from None

    def ode(self) -> str:
        """The kind of its ODE: adaptive if it can be solved at other tolerances, else none.

        It can if a file solves with torchdiffeq or this package, or defines `set_tolerance`.
        """
        return _ode(self)

    def check(self, build: str, arguments: Mapping[str, object]) -> None:
        """Refuse a file that does not define what builds the model, or not with these arguments.

        Args:
            build: the name of a function or class.
            arguments: what it is called with, in addition to `GIVEN`.

        Raises:
            UserError: without the key that is wrong, which is the one before its text.
        """
        self.code()
        defined, complete = _definitions(self.path)
        if build not in defined:
            if not complete:
                return
            made = [n for n, d in defined.items() if isinstance(d, ast.FunctionDef | ast.ClassDef)]
            there = f"it has {listed(made, 'and')}" if made else "it has no function and no class"
            raise UserError(
                f"build: {self.path} defines no {build} ({there}): name the function or class that "
                "builds the model"
            )
        signature = _signature(defined[build])
        if signature is None:
            return
        taken, required = signature
        for name in arguments:
            if name not in taken:
                known = listed(taken, "and") if taken else "none"
                raise UserError(
                    f"arguments.{name}: {build} in {self.path} takes no such argument (it takes "
                    f"{known}): correct the name, or remove it"
                )
        missing = [name for name in required if name not in (*arguments, *GIVEN)]
        if missing:
            raise UserError(
                f"arguments: {build} in {self.path} needs {listed(missing, 'and')}: add it"
            )


def find(module: str) -> ModelFile:
    """The file that a path, relative to the working directory, or a dotted name stands for.

    Raises:
        UserError: there is none.
    """
    if "/" not in module and not module.endswith(".py"):
        return _find_by_name(module)
    path = Path(module)
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the Python file in it that builds the model")
    if not path.is_file():
        raise UserError(f"there is no file {path} in {Path.cwd()}: correct the path")
    if path.suffix != ".py":
        raise UserError(f"{path} is no Python file: name the .py file that builds the model")
    path = path.resolve()
    return ModelFile(path, path.parent)


def _find_by_name(module: str) -> ModelFile:
    """The file of a dotted name. No package is imported, as its code would run."""
    package, *inside = module.split(".")
    if all(part.isidentifier() for part in (package, *inside)):
        spec = importlib.util.find_spec(package)
        places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
        installed = [Path(place).parent for place in places if place]
        for root in (Path.cwd(), *installed):
            path = _module_file(root, package, inside)
            if path is not None:
                return ModelFile(path, root, package)
    raise UserError(
        f"there is no module {module}: install it in this environment, or give the path of its "
        "file, such as models/net.py"
    )


def _module_file(root: Path, package: str, inside: list[str]) -> Path | None:
    path = root.joinpath(package, *inside)
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def _ode(file: ModelFile) -> str:
    code = file.code()
    files = (file.root / name for name in code if name.endswith(".py"))
    return "adaptive" if _SOLVERS & code.keys() or any(map(_sets_tolerance, files)) else "none"


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def _sets_tolerance(path: Path) -> bool:
    functions = (node for node in ast.walk(_parsed(path)) if isinstance(node, ast.FunctionDef))
    return any(function.name == _SETTER for function in functions)


def _definitions(path: Path) -> tuple[dict[str, ast.AST], bool]:
    """The names at the top of a module with what defines them, and whether these are all."""
    defined: dict[str, ast.AST] = {}
    complete = True
    for node in _at_the_top(_parsed(path).body):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                defined[name] = node
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                complete &= all(alias.name != "*" for alias in names)
                defined |= {alias.asname or alias.name.partition(".")[0]: node for alias in names}
            case ast.Assign() | ast.AnnAssign():
                targets = (n for n in ast.walk(node) if isinstance(n, ast.Name))
                defined |= {n.id: node for n in targets if isinstance(n.ctx, ast.Store)}
    return defined, complete and "__getattr__" not in defined


def _at_the_top(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, also those under conditions, outside functions and classes."""
    for statement in statements:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for name in ("body", "orelse", "finalbody"):
                yield from _at_the_top(getattr(statement, name, []))
            for handler in getattr(statement, "handlers", []):
                yield from _at_the_top(handler.body)


def _signature(definition: ast.AST) -> tuple[list[str], list[str]] | None:
    """The arguments that a function or class takes by name and those that it needs.

    None where the syntax tree does not say: decorators change it, classes inherit it.
    """
    function, first = definition, 0
    if isinstance(definition, ast.ClassDef) and not definition.decorator_list:
        methods = (node for node in definition.body if isinstance(node, ast.FunctionDef))
        function = next((node for node in methods if node.name == "__init__"), definition)
        first = 1  # after self
    if not isinstance(function, ast.FunctionDef) or function.decorator_list:
        return None
    arguments = function.args
    if arguments.kwarg is not None or arguments.posonlyargs:
        return None
    positional = [argument.arg for argument in arguments.args]
    without_default = positional[first : len(positional) - len(arguments.defaults)]
    by_name = [argument.arg for argument in arguments.kwonlyargs]
    pairs = zip(by_name, arguments.kw_defaults, strict=True)
    required = [name for name, default in pairs if default is None]
    return positional[first:] + by_name, without_default + required
