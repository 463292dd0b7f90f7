"""The digests of code: what counts, what does not, and that every rule has them."""

import ast
import importlib
import re
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from node_robustness.code import digest
from node_robustness.code.digest import NEUTRAL, normalised, of_script
from node_robustness.config import loading, models
from node_robustness.config.enough_images import shortages
from node_robustness.config.values import Section

WORKFLOW = Path(__file__).parents[3] / "workflow"
SCRIPTS = WORKFLOW / "scripts"
RULE = re.compile(r"^rule (\w+):\n((?:[ \t]+.*\n|\n)+)", re.M)

SOURCE = '''"""A module."""
from x import y

LIMIT = 0.1
"""What it is."""


def f(a: int) -> int:
    """Does it."""
    return a + y(1000, "s")
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 0.1", "LIMIT = 1e-1  # a comment"),
        ("1000", "1_000"),
        ('"s"', "'s'"),
        ('"s"', '("s")'),
        ('y(1000, "s")', 'y(\n        1000,\n        "s",\n    )'),
        ("Does it.", "Does something."),
        ('    """Does it."""\n', ""),
        ('"""A module."""\n', ""),
        ('"""What it is."""\n', ""),
        ("LIMIT", '__version__ = "9"\nLIMIT'),
        ("LIMIT", "if TYPE_CHECKING:\n    import z\nLIMIT"),
        ("LIMIT", "if typing.TYPE_CHECKING:\n    import z\nLIMIT"),
    ],
)
def test_form_alone(old, new):
    assert old in SOURCE
    assert normalised(SOURCE.replace(old, new, 1)) == normalised(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1", "0.2"),
        ("1000", "1000.0"),
        ("1000", '"1000"'),
        ("1000", "True"),
        ('"s"', '"t"'),
        ('"s"', 'b"s"'),
        ("a + y", "a - y"),
        ("a + y", "y + a"),
        ("(a: int)", "(a: float)"),
        ("(a: int)", "(a: int = 0)"),
        ("(a: int)", "(a: int = None)"),
        ("(a: int)", "(a: int, /)"),
        ("(a: int)", "(*a: int)"),
        ("def f", "async def f"),
        ("from x import y", "from x import z as y"),
        ("from x import y", "from .x import y"),
        ("LIMIT", "OTHER"),
        ("LIMIT", "if TYPE_CHECKING:\n    import z\nelse:\n    import w\nLIMIT"),
    ],
)
def test_meaning(old, new):
    assert normalised(SOURCE.replace(old, new, 1)) != normalised(SOURCE)


def test_statements_do_not_run_together():
    assert normalised("if a:\n    b()\n    c()") != normalised("if a:\n    b()\nc()")
    assert normalised("f(a, *[b])") != normalised("f(a, *[], b)")


NAMED = ("pack/page.html", "pack/parts/style.css", "pack/parts/more/page.js")


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A script, and a package in its folder."""
    for name, text in {
        "script.py": "import os\nimport pack.top\nfrom pack import leaf, VALUE\nimport torch.nn",
        "other.py": "import pack.sub",
        "pack/__init__.py": "VALUE = 1",
        "pack/top.py": "def f():\n    from pack.sub import deep\n    import sklearn",
        "pack/leaf.py": "from . import cousin as c\nfrom .sub.far import thing\nimport json",
        "pack/cousin.py": "import statistics\nimport pack.leaf\nNAMES = ['page.html', 'no.html', "
        "'parts', 'sub', 'no']",
        "pack/page.html": "<p>",
        "pack/unnamed.html": "<p>",
        "pack/parts/style.css": "p {}",
        "pack/parts/more/page.js": "1",
        "pack/others/style.css": "p {}",
        "pack/unused.py": "import pandas",
        "pack/statistics.py": "",
        "pack/sub/__init__.py": "from .near import n",
        "pack/sub/deep.py": "from ..leaf import x\nimport no_such_library",
        "pack/sub/far.py": "",
        "pack/sub/near.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        "    import pack.unused",
        "pack/sub/unused.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_imports_are_followed(scripts):
    found = of_script(scripts / "script.py")
    assert {name: found.pop(name) for name in ("torch", "scikit-learn", "no_such_library")} == {
        "torch": version("torch").split("+")[0],
        "scikit-learn": version("scikit-learn"),
        "no_such_library": "not installed",
    }
    modules = ["__init__", "cousin", "leaf", "top"]
    modules += ["sub/__init__", "sub/deep", "sub/far", "sub/near"]
    names = {f"pack/{module}.py" for module in modules}
    assert set(found) == names | {"script.py", *NAMED}
    assert list(found) == sorted(found)
    assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in found.values())
    assert set(of_script(scripts / "other.py")) == {
        "other.py",
        "pack/__init__.py",
        "pack/sub/__init__.py",
        "pack/sub/near.py",
    }


@pytest.mark.parametrize("name", ["script.py", "pack/sub/far.py", *NAMED])
def test_each_file_has_its_own_digest(scripts, name):
    before = of_script(scripts / "script.py")
    path = scripts / name
    path.write_text(f"{path.read_text()}\nx = 1")
    for cached in (digest._of_files, digest._read):
        cached.cache_clear()
    after = of_script(scripts / "script.py")
    assert {key for key in before | after if before.get(key) != after.get(key)} == {name}


def test_modules_that_are_found_by_their_files_count(scripts):
    text = "from pack import sub, leaf as other\nfrom pkgutil import iter_modules\n"
    (scripts / "finds.py").write_text(f"{text}found = [iter_modules(sub.__path__), other]")
    (scripts / "does_not.py").write_text(text)
    of_sub = {"pack/sub/deep.py", "pack/sub/unused.py"}
    assert of_sub <= set(of_script(scripts / "finds.py"))
    assert not of_sub & set(of_script(scripts / "does_not.py"))


def test_modules_whose_names_are_computed_count_where_they_are_named(scripts):
    plain = of_script(scripts / "other.py")
    found = of_script(scripts / "other.py", "pack.leaf", "pack.unused")
    assert plain.items() <= found.items()
    assert set(found) - set(plain) == {
        *("pack/leaf.py", "pack/unused.py", "pack/cousin.py", "pack/sub/far.py"),
        *NAMED,
        "pandas",
    }


def test_neutral_modules_are_not_followed(scripts):
    package = scripts / "node_robustness"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs").mkdir()
    (package / "jobs/log.py").write_text("import pandas")
    (scripts / "neutral.py").write_text(
        "import tqdm.auto\nfrom node_robustness.jobs.log import job"
    )
    assert set(of_script(scripts / "neutral.py")) == {"neutral.py", "node_robustness/__init__.py"}


def test_neutral_modules_are_there():
    for name in NEUTRAL:
        if name.startswith("node_robustness."):
            path = SCRIPTS.joinpath(*name.split("."))
            assert path.is_dir() or path.with_suffix(".py").is_file()


def test_settings_reach_results_through_params_alone():
    """What jobs take from the neutral modules of `config` has no code but checks."""
    of_no_job = ("code", "config", "grid", "scheduling")
    used = set()
    for path in SCRIPTS.rglob("*.py"):
        name = ".".join(path.relative_to(SCRIPTS).with_suffix("").parts)
        if name in NEUTRAL or path.parent.name in of_no_job:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module) if is_ours(node) else None
                for alias in node.names if module else ():
                    if node.module in NEUTRAL:
                        used.add(getattr(module, alias.name))
                    elif f"{node.module}.{alias.name}" in NEUTRAL:
                        used |= taken(path, getattr(module, alias.name), alias.asname or alias.name)
    assert {loading.load, models.Training, models.Augmentation} <= used
    for section in used - {loading.load, shortages}:
        assert issubclass(section, Section), section
        checks = section.__pydantic_decorators__
        own = {
            key
            for key, value in vars(section).items()
            if isinstance(value, FunctionType | property | classmethod | staticmethod)
            and key != "__hash__"
        }
        assert own <= {*checks.model_validators, *checks.field_validators}, section


def is_ours(node: ast.ImportFrom) -> bool:
    return bool(node.module) and node.module.startswith("node_robustness.config")


def taken(path: Path, module: ModuleType, local: str) -> set[object]:
    """What a file takes from a module that it has imported by a name."""
    tree = ast.parse(path.read_text())
    return {
        getattr(module, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == local
    }


def rules() -> list[tuple[str, str]]:
    """The name and the text of every rule."""
    files = [WORKFLOW / "Snakefile", *sorted((WORKFLOW / "rules").glob("*.smk"))]
    return [found for path in files for found in RULE.findall(path.read_text())]


def digested(rule: str) -> list[str]:
    """The scripts of which a rule has the digests."""
    return re.findall(r'"(\w+)"', "".join(re.findall(r"^ +code=code_of\((.*)\),$", rule, re.M)))


@pytest.mark.parametrize(("name", "text"), rules(), ids=lambda value: value.split("\n")[0])
def test_every_rule_has_the_digest_of_its_script(name, text):
    scripts = re.findall(r'^ +script:\n +"\.\./scripts/(\w+)\.py"$', text, re.M)
    assert set(scripts) <= set(digested(text))
    if name != "all":
        assert len(scripts) == 1, "what is not in a script is in no digest"
        assert not re.search(r"^ +(run|shell|notebook|wrapper):", text, re.M)


@pytest.mark.parametrize(
    ("module", "scripts"),
    [
        ("data/formats", {"fetch", "prepare"}),
        ("data/splits", {"fetch", "prepare"}),
        ("models/state_dicts", {"import_weights"}),
        ("attacks/files", {"attack", "reevaluate", "trajectory"}),
        ("audits/files", {"audit"}),
        ("audits/gradients", {"audit"}),
        ("audits/attack_checks", {"audit"}),
        ("audits/attack_paths", {"audit"}),
        ("audits/held_steps", {"audit"}),
        ("audits/network", {"audit"}),
        ("audits/tolerance_matrix", {"reevaluate"}),
        ("audits/randomisation", {"randomise"}),
        ("audits/detection", {"detect"}),
        ("audits/adjoint_sweep", {"sweep"}),
        ("audits/cost", {"attack_cost"}),
        ("trajectories/writer", {"trajectory"}),
        ("provenance/costs", {"report"}),
        ("provenance/manifest", {"report"}),
        ("jobs/gpus", set()),
    ],
)
def test_a_module_reruns_the_stages_that_use_it(module, scripts):
    name = f"node_robustness/{module}.py"
    assert (SCRIPTS / name).is_file()
    assert {path.stem for path in SCRIPTS.glob("*.py") if name in of_script(path)} == scripts


def test_every_script_has_a_rule():
    used = {script for _, text in rules() for script in digested(text)}
    assert used == {path.stem for path in SCRIPTS.glob("*.py")}


def test_files_next_to_modules_belong_to_some_stage():
    """A file that a module reads, but does not name in a literal, would be in no digest."""
    found = set().union(*(of_script(path) for path in SCRIPTS.glob("*.py")))
    data = {
        path.relative_to(SCRIPTS).as_posix()
        for path in SCRIPTS.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data
    assert data <= found


METHODS, MAKE = "node_robustness/config/methods.py", "node_robustness/attacks/make.py"
OWN = "node_robustness/models/own/modules.py"
SERVER = "node_robustness/warm/server.py"


def test_no_import_is_hidden_from_the_digests():
    """Three modules import by computed names: of one, which these are is seen by `__path__`.

    The code of own models is a param of the rules that make them. The server imports what scripts
    import themselves.
    """
    computed = re.compile(r"import_module|__import__|\bexec\(")
    found = {
        path.relative_to(SCRIPTS).as_posix()
        for path in SCRIPTS.rglob("*.py")
        if computed.search(path.read_text())
    }
    assert found == {METHODS, MAKE, OWN, SERVER}
    settings = {path.name for path in (SCRIPTS / "node_robustness/config/attacks").glob("*.py")}
    page = of_script(SCRIPTS / "page.py")
    assert {name for name in page if name.startswith("node_robustness/config/attacks/")} == {
        f"node_robustness/config/attacks/{name}" for name in settings
    }


@pytest.mark.parametrize(("name", "text"), rules(), ids=lambda value: value.split("\n")[0])
def test_rules_that_make_attacks_have_the_digests_of_their_methods(name, text):
    makes = any(MAKE in of_script(SCRIPTS / f"{script}.py") for script in digested(text))
    assert makes == ("modules=of_job(params.methods)" in text)
