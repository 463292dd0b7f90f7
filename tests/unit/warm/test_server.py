"""The server has imported what scripts import, none of their own modules, and nothing reads what
may differ between it and a fork.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import node_robustness
from node_robustness.warm import client, server

SCRIPTS = Path(node_robustness.__file__).parents[1]
NOT_IMPORTED = {
    "requests": "one job downloads",
    "urllib3": "one job downloads",
    "snakemake.api": "no job plans a run",
    "snakemake.cli": "no job plans a run",
    "snakemake.settings": "no job plans a run",
    "torchattacks": "of those attacks alone, and not always installed",
}
READ_IN_VAIN = {
    "XDG_CACHE_HOME": "altair.datasets has its downloads there, and no script uses it",
}
# A module of the same name in a fork would be another one.
SAYS = """
import json, sys, os, threading
print(json.dumps({
    "modules": list(sys.modules), "read": sorted(os.read_variables),
    "cuda": os.asked_for_cuda,
    "threads": threading.active_count(), "folder": os.getcwd(),
    "drawn": sys.modules["numpy"].random.rand(), "path": sys.path,
}))
"""
# The environment notes which variables it is asked for, but for the search for those of proxies.
NOTES = """
    os.read_variables = set()
    variables, get = type(os.environ), type(os.environ).__getitem__
    def noting(self, key):
        if sys._getframe(1).f_code.co_name != "__iter__":
            os.read_variables.add(os.fsdecode(key))
        return get(self, key)
    variables.__getitem__ = noting
    os.asked_for_cuda = []
    def watch():
        torch = sys.modules.get("torch")
        if torch is not None:
            for name in ("is_available", "device_count", "init", "_lazy_init"):
                setattr(torch.cuda, name, lambda *_, name=name: os.asked_for_cuda.append(name))
    gc.disable()
"""


def libraries(path: Path) -> Iterator[str]:
    """The libraries' modules that a module imports, anywhere but for types alone."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                names = [module]
            case _:
                names = []
        for name in names:
            first = name.partition(".")[0]
            if first not in sys.stdlib_module_names and first != "node_robustness":
                yield name
        pending += ast.iter_child_nodes(node)


def needed() -> set[str]:
    found = {name for path in SCRIPTS.rglob("*.py") for name in libraries(path)}
    found -= set(server.IMPORTED)
    return found - {
        name for name in found for other in NOT_IMPORTED if f"{name}.".startswith(f"{other}.")
    }


@pytest.fixture
def said(warm):
    """What two forks of a server with all libraries say."""
    warm.edit("server.py", "in ():", "in (*IMPORTED, *USED):")
    warm.edit("server.py", "\n    gc.disable()\n", NOTES)
    warm.edit("server.py", "import_module(library)", "import_module(library); watch()")
    warm.edit("server.py", "    gc.collect()", "    variables.__getitem__ = get")
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    runs = [warm.run(SAYS, environment=variables) for _ in range(2)]
    assert [run.stderr for run in runs] == ["", ""]
    (process,) = warm.servers()
    found = [json.loads(run.stdout) for run in runs]
    found[0]["server's threads"] = process.num_threads()
    found[0]["package"] = str(warm.package)
    return found


def test_what_it_has_imported(said):
    first, second = said
    modules = set(first["modules"])
    assert {*server.IMPORTED, *server.USED} <= modules
    # All that scripts name, or that comes with it.
    assert not needed() - modules
    ours = [*SCRIPTS.glob("*"), *SCRIPTS.glob("node_robustness/warm/*.py")]
    assert not {name.partition(".")[0] for name in modules} & {path.stem for path in ours}
    assert not any(folder.startswith(first["package"]) for folder in first["path"])
    # After that, a fork could not use CUDA.
    assert not first["cuda"]
    assert first["threads"] == 1
    # Arrow's allocator has one, which is made for forks.
    assert first["server's threads"] <= 2
    assert first["drawn"] != second["drawn"]
    assert "TORCH_LOGS" in first["read"]
    read = {name.encode(): b"" for name in first["read"] if name not in READ_IN_VAIN}
    assert client.kept(read) == read, "a library reads what may differ in a fork"


def test_each_name_is_of_a_module_that_a_script_imports():
    every = {name for path in SCRIPTS.rglob("*.py") for name in libraries(path)}
    every |= {"snakemake.iocontainers", "snakemake.logging"}  # what Snakemake puts before a script
    every |= {"PIL.Image"}  # by `from PIL import Image`
    assert set(server.IMPORTED) <= every
    assert len(set(server.IMPORTED)) == len(server.IMPORTED)


def test_forks_compile_a_module_once_though_nothing_is_written_next_to_it(warm):
    module = warm.folder / "theirs.py"
    body = f"import sys; sys.path.append({str(warm.folder)!r}); import theirs; print(theirs.VALUE)"
    for value in ("1", "22"):
        module.write_text(f"VALUE = {value}")
        for _ in range(2):
            forked = warm.run(body, environment={"PYTHONDONTWRITEBYTECODE": "1"})
            assert (forked.stdout, forked.stderr) == (f"{value}\n", "")
    assert len(warm.servers()) == 1
    assert not (warm.folder / "__pycache__").exists()
    assert len([*(warm.sockets / "bytecode").rglob("theirs.*.pyc")]) == 1
