"""The file of an own model: where it is, and what it says without being run."""

import sys
from pathlib import Path

import pytest

from node_robustness.code.model_file import find
from node_robustness.errors import UserError

FUNCTION = "def build(width, depth=2, *, channels, classes=10): raise SystemExit"
CLASS = "class build(Base):\n    def __init__(self, width, depth=2): raise SystemExit"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


class TestFind:
    def test_a_path(self, folder):
        file = find(write("models/net.py", ""))
        assert (file.path, file.root) == (folder / "models/net.py", folder / "models")

    @pytest.mark.parametrize("name", ["pack.sub.net", "pack.sub", "pack"])
    def test_a_dotted_name_in_the_working_directory(self, folder, name):
        for path in ("pack/__init__.py", "pack/sub/__init__.py", "pack/sub/net.py"):
            write(path, "raise SystemExit")
        file = find(name)
        assert (file.root, file.package) == (folder, "pack")
        assert file.path.relative_to(folder).with_suffix("").parts[: name.count(".") + 1] == tuple(
            name.split(".")
        )

    def test_an_installed_module(self, folder, monkeypatch):
        write("site/installed/net.py", "raise SystemExit")
        monkeypatch.syspath_prepend(folder / "site")
        assert find("installed.net").path == folder / "site/installed/net.py"
        assert "installed" not in sys.modules

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            ("models/no.py", "there is no file models/no.py in {}: correct the path"),
            ("no.py", "there is no file no.py in {}: correct the path"),
            ("models/", "models is a folder: name the Python file in it that builds the model"),
            (
                "models/net.txt",
                "models/net.txt is no Python file: name the .py file that builds the model",
            ),
            *(
                (
                    name,
                    f"there is no module {name}: install it in this environment, or give the path "
                    "of its file, such as models/net.py",
                )
                for name in ("no_such_module", "json.no", "sys", "a-b", "a..b")
            ),
        ],
    )
    def test_there_is_none(self, folder, module, message):
        write("models/net.txt", "")
        with pytest.raises(UserError) as caught:
            find(module)
        assert str(caught.value) == message.format(folder)


class TestCode:
    def test_the_file_what_it_imports_from_its_folder_and_libraries(self):
        write("models/layers.py", "import json, numpy")
        write("models/parts/__init__.py", "from . import conv")
        write("models/parts/conv.py", "")
        write("models/unused.py", "import pandas")
        write("models/mean.txt", "1")
        text = "import torch.nn, layers\nfrom parts import conv\nopen('mean.txt')"
        code = find(write("models/net.py", text)).code()
        files = {"net.py", "layers.py", "parts/__init__.py", "parts/conv.py"}
        assert set(code) == files | {"torch", "numpy"}

    def test_of_a_package_other_packages_of_its_folder_are_libraries(self):
        write("pack/net.py", "from pack.layers import x\nimport other")
        write("pack/layers.py", "")
        write("other/__init__.py", "import pandas")
        assert find("pack.net").code() == {
            **{name: find("pack.net").code()[name] for name in ("pack/net.py", "pack/layers.py")},
            "other": "not installed",
        }

    def test_what_runs_only_as_a_program_does_not_count(self):
        plain = find(write("a/net.py", "x = 1")).code()
        text = "x = 1  # a comment\nif __name__ == '__main__':\n    import matplotlib\n    x = 2"
        assert find(write("b/net.py", text)).code() == plain
        assert find(write("c/net.py", "x = 2")).code() != plain

    @pytest.mark.parametrize("name", ["net.py", "layers.py"])
    def test_no_python_code(self, folder, name):
        write("models/net.py", "import layers")
        write("models/layers.py", "")
        write(f"models/{name}", "\nx = = 1")
        with pytest.raises(UserError) as caught:
            find("models/net.py").code()
        where = f"{folder}/models/{name}, line 2: "
        assert str(caught.value) == where + "invalid syntax: correct the file"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("import torch", "none"),
        ("import torchdiffeq", "adaptive"),
        ("from node_robustness.ode import odeint", "adaptive"),
        ("def f():\n    from torchdiffeq._impl import odeint as o", "adaptive"),
        ("import layers", "adaptive"),
        ("import setter", "adaptive"),
        ("class N:\n    def set_tolerance(self, tau): ...", "adaptive"),
        ("torchdiffeq = set_tolerance = 1", "none"),
        ("if __name__ == '__main__':\n    import torchdiffeq", "none"),
    ],
)
def test_the_kind_of_the_ode(text, kind):
    write("layers.py", "import torchdiffeq as t")
    write("setter.py", "def set_tolerance(tau): ...")
    assert find(write("net.py", text)).ode() == kind


class TestCheck:
    def check(self, text: str, build: str = "build", **arguments: object) -> None:
        find(write("net.py", text)).check(build, arguments)

    @pytest.mark.parametrize(
        "text",
        [
            FUNCTION,
            CLASS,
            "def build(**others): ...",
            "class build(Base): ...",
            "@wraps\ndef build(): ...",
            "@dataclass\nclass build:\n    def __init__(self): ...",
            "from net import build",
            "from net import Net as build",
            "import net as build",
            "from net import *",
            "build = partial(Net)",
            "build: object = Net",
            "first, build = 1, Net",
            "def __getattr__(name): ...",
            f"if True:\n    pass\nelse:\n    {FUNCTION}",
            f"try:\n    import net\nexcept ImportError:\n    {FUNCTION}",
        ],
    )
    def test_what_builds_a_model_is_there_and_takes_the_arguments(self, text):
        self.check(text, width=3)

    @pytest.mark.parametrize(
        ("text", "there"),
        [
            ("", "it has no function and no class"),
            ("class Net: ...\ndef make():\n    def build(): ...", "it has Net and make"),
            ("class Net:\n    def build(self): ...", "it has Net"),
        ],
    )
    def test_nothing_builds_a_model(self, folder, text, there):
        with pytest.raises(UserError) as caught:
            self.check(text)
        assert str(caught.value) == (
            f"build: {folder}/net.py defines no build ({there}): name the function or class that "
            "builds the model"
        )

    def test_another_name(self):
        self.check("class Net:\n    def __init__(self, width=3): ...", "Net", width=3)

    @pytest.mark.parametrize(
        ("text", "known"),
        [
            (FUNCTION, "width, depth, channels and classes"),
            (CLASS, "width and depth"),
            ("def build(): ...", "none"),
        ],
    )
    def test_an_argument_that_it_does_not_take(self, folder, text, known):
        with pytest.raises(UserError) as caught:
            self.check(text, widht=3)
        assert str(caught.value) == (
            f"arguments.widht: build in {folder}/net.py takes no such argument (it takes {known}): "
            "correct the name, or remove it"
        )

    @pytest.mark.parametrize("text", [FUNCTION, CLASS])
    def test_an_argument_that_it_needs(self, folder, text):
        with pytest.raises(UserError) as caught:
            self.check(text)
        assert str(caught.value) == f"arguments: build in {folder}/net.py needs width: add it"
