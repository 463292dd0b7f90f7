"""What code means: a digest of every file that it uses, and its libraries' versions.

Every rule passes `of_script` as its param `code`, and own models pass `of_module` of their file.
Snakemake keeps the params of each output and runs a job again when they differ, so a stage runs
again when the meaning of its code changes, and not when a file is merely touched, commented or
reformatted. docs/reruns.md says what follows.

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

import ast
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_SETTINGS = ("compute", "config", "datasets", "experiment", "loading", "models")
NEUTRAL = {
    **{
        f"node_robustness.config.{name}": "what it reads reaches a job in params"
        for name in _SETTINGS
    },
    "node_robustness.config.enough_images": "it refuses, and changes nothing",
    **{
        f"node_robustness.grid.{name}": "it says which jobs there are"
        for name in ("cells", "sources")
    },
    "node_robustness.data.enough_images": "it refuses, and changes nothing",
    "node_robustness.jobs.gpus": "it says which of several GPUs a job takes",
    "node_robustness.library": "no job imports it",
    "node_robustness.jobs.log": "the log, the progress bar and the messages of a job",
    "node_robustness.jobs.record": "what a job cost",
    "node_robustness.data.downloads": "what it brings counts only with the right SHA-256",
    "requests": "downloads",
    "urllib3": "downloads",
    "tqdm": "progress bars",
}
"""Modules and libraries that stages import and that change no result, each with the reason."""

_DIGITS = 12
# `ctx` and `kind` say nothing that the rest of the tree does not.
_REDUNDANT = ("ctx", "kind", "type_comment")


def of_script(script: Path, *modules: str) -> dict[str, str]:
    """What the results of a script depend on besides its inputs and its other params.

    Imports are followed through the folder of the script (its modules, packages and
    subpackages, at the top of a module and inside functions) down to the libraries; what is
    imported for type checkers only is not. All modules of a package count where the package's
    `__path__` is read. A file that is no Python code counts where a module in the same folder
    names it in a literal, and all files of a folder without Python code count where a module next
    to the folder names the folder, as a folder of templates is named.

    Args:
        script: a Python file; the names that it imports are looked for in its folder.
        *modules: what it also imports, by names that it computes.

    Returns:
        By name, in alphabetical order: of each file, relative to the folder, a digest of 12
        hexadecimal digits; of each library its public version (`2.13.0`, whatever the build).
    """
    script = script.resolve()
    root = script.parent
    others = (root.joinpath(*name.split(".")).with_suffix(".py") for name in modules)
    return dict(_of_files((script, *others), root))


def of_module(path: Path, root: Path, package: str | None = None) -> dict[str, str]:
    """What a module of the user depends on: files that it imports, and libraries.

    Files that it names do not count: what a user's file reads or writes is unknown.

    Args:
        path: its file, inside `root`.
        root: the folder in which the names that it imports are looked for.
        package: of that folder only the package of this name is followed; all of it if None.

    Returns:
        As `of_script`.

    Raises:
        SyntaxError: a file is not Python code.
    """
    return dict(_of_files((path,), root, package, named=False))


@cache
def _of_files(
    files: tuple[Path, ...], root: Path, package: str | None = None, *, named: bool = True
) -> dict[str, str]:
    digests: dict[str, str] = {}
    libraries: set[str] = set()
    read: set[Path] = set()
    pending = {*files}
    while pending:
        path = pending.pop()
        read.add(path)
        code = _read(path, root)
        digests[path.relative_to(root).as_posix()] = code.digest
        for other in code.named if named else ():
            digests[other.relative_to(root).as_posix()] = _digest(other.read_bytes())
        imported, others = _imported(path, root, package)
        pending |= imported - read
        libraries |= others
    for library in libraries:
        digests |= _versions(library)
    return dict(sorted(digests.items()))


def normalised(source: str | bytes) -> str:
    """The meaning of Python code as text: the same for code that differs in form alone.

    Comments, docstrings, formatting, the spelling of literals, imports for type checkers,
    `__version__` and what runs only as a program (`if __name__ == "__main__"`) do not count. The
    text is the same under every version of Python that parses the code to the same tree; fields of
    the tree that are empty are left out, as newer versions add some.
    """
    code = _Code()
    code.add(ast.parse(source))
    return " ".join(code.words)


@dataclass
class _Code:
    """The words of a syntax tree, and the names that it imports and mentions."""

    package: tuple[str, ...] = ()
    words: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    literals: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)

    def add(self, node: object) -> None:
        """Take in a node, a list of nodes, or a value of a node's field."""
        if isinstance(node, ast.Constant):
            self.words.append(repr(node.value))
            if isinstance(node.value, str):
                self.literals.add(node.value)
        elif isinstance(node, ast.AST):
            self._add_imports(node)
            match node:
                case ast.Attribute(attr="__path__", value=ast.Name(id=package)):
                    self.paths.add(package)
            self.words.append(f"{type(node).__name__}(")
            for name in node._fields:
                value = getattr(node, name, None)
                if value is not None and value != [] and name not in _REDUNDANT:
                    self.words.append(f"{name}=")
                    self.add(value)
            self.words.append(")")
        elif isinstance(node, list):
            self.words.append("[")
            for item in node:
                self._add_item(item)
            self.words.append("]")
        else:
            self.words.append(repr(node))

    def _add_item(self, item: object) -> None:
        if isinstance(item, ast.If) and _is_never_imported(item.test):
            for statement in item.orelse:
                self._add_item(statement)
        elif not _is_idle(item):
            self.add(item)

    def _add_imports(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            self.imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = self.package[: len(self.package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            self.imports.add(base)
            # A name that is imported from a package may be a module of it.
            named = {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
            self.imports.update(named.values())
            self.names |= named


def _is_idle(item: object) -> bool:
    """Whether a statement does nothing: a docstring, or the version that files record."""
    match item:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__version__")]):
            return True
    return False


def _is_never_imported(test: ast.expr) -> bool:
    """Whether what this condition guards runs for type checkers or in a program alone."""
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case ast.Compare(
            left=ast.Name(id="__name__"),
            ops=[ast.Eq()],
            comparators=[ast.Constant(value="__main__")],
        ):
            return True
    return False


@dataclass(frozen=True)
class _Text:
    """The text of a Python file: its digest, what it imports, and its literals.

    `packages` are those whose modules it finds by their files.
    """

    digest: str
    imports: frozenset[str]
    packages: frozenset[str]
    literals: frozenset[str]


@cache
def _parsed(source: bytes, package: tuple[str, ...]) -> _Text:
    """Cached by the text: that of a file in another checkout is parsed once."""
    code = _Code(package=package)
    code.add(ast.parse(source))
    return _Text(
        _digest(" ".join(code.words).encode()),
        frozenset(code.imports),
        frozenset(code.names[name] for name in code.paths & code.names.keys()),
        frozenset(code.literals),
    )


@dataclass(frozen=True)
class _Module(_Text):
    """A Python file, with the other files that it names."""

    named: frozenset[Path]


@cache
def _read(path: Path, root: Path) -> _Module:
    try:
        text = _parsed(path.read_bytes(), path.parent.relative_to(root).parts)
    except SyntaxError as error:
        error.filename = str(path)
        raise
    neighbours = {file.name: file for file in path.parent.iterdir() if file.suffix != ".py"}
    named = [neighbours[name] for name in text.literals & neighbours.keys()]
    # A folder that is gone may have left its `__pycache__`.
    inside = (
        file
        for folder in named
        if not [*folder.glob("*.py")]
        for file in folder.rglob("*")
        if "__pycache__" not in file.parts
    )
    return _Module(
        **vars(text), named=frozenset(file for file in (*named, *inside) if file.is_file())
    )


@cache
def _imported(
    path: Path, root: Path, package: str | None
) -> tuple[frozenset[Path], frozenset[str]]:
    """The files that a module imports, and the top-level names of the libraries."""
    code = _read(path, root)
    files: set[Path] = set()
    libraries: set[str] = set()
    for other_package in code.packages:
        files.update(root.joinpath(*other_package.split(".")).glob("*.py"))
    for name in _that_count(code.imports):
        inside = package in (None, name.partition(".")[0])
        found = _file_of(name, root) if inside else None
        if found is not None:
            files.add(found)
        elif "." not in name and not (inside and (root / name).is_dir()):
            libraries.add(name)
    return frozenset(files), frozenset(libraries)


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:_DIGITS]


def _that_count(imports: Iterable[str]) -> Iterator[str]:
    """Each imported name after the packages above it, which the import runs too."""
    for name in imports:
        parts = name.split(".")
        if parts[0] in sys.stdlib_module_names:
            continue
        for length in range(1, len(parts) + 1):
            above = ".".join(parts[:length])
            if above in NEUTRAL:
                break
            yield above


@cache
def _file_of(name: str, root: Path) -> Path | None:
    """The file that a dotted name is imported from, if it is in this folder."""
    path = root.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def _versions(library: str) -> dict[str, str]:
    """The public versions of the distributions that a top-level name comes from, by their names."""
    try:
        return {library: _version(library)}
    except importlib.metadata.PackageNotFoundError:
        versions = {name: _version(name) for name in _distributions_with(library)}
        return versions or {library: "not installed"}


def _distributions_with(library: str) -> set[str]:
    """The distributions that a top-level name comes from.

    `importlib.metadata.packages_distributions` gives them too, in ten times the time.
    """
    found = set()
    for distribution in importlib.metadata.distributions():
        files = "\n" + (distribution.read_text("RECORD") or "")
        if f"\n{library}/" in files or f"\n{library}." in files:
            found.add(distribution.name)
    return found


def _version(distribution: str) -> str:
    """Its version without the local part, which is the build: `2.13.0` for `2.13.0+cpu`."""
    return importlib.metadata.version(distribution).partition("+")[0]
