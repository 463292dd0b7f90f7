"""What a public repository has around the code: CI, templates, hooks, folders that are kept."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from node_robustness.config.values import Name

ROOT = Path(__file__).parents[3]
CI = ROOT / ".github/workflows/ci.yml"
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))  # not config.yml
MAKEFILE = (ROOT / "Makefile").read_text()


def read(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def git(*arguments: str, root: Path = ROOT) -> str:
    run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return run.stdout


def test_every_yaml_file_can_be_read():
    files = [
        *(ROOT / ".github").rglob("*.y*ml"),
        *ROOT.glob(".*.y*ml"),
        *ROOT.glob("config/*.y*ml"),
    ]
    files += [*(ROOT / "profiles").rglob("*.y*ml"), *(ROOT / "workflow").rglob("*.y*ml")]
    assert {CI, ROOT / ".pre-commit-config.yaml", ROOT / "config/config.yaml"} < set(files)
    for path in files:
        read(path)


def test_every_job_of_ci_is_one_command_of_make_with_a_limit():
    jobs = read(CI)["jobs"]
    commands = {
        name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()
    }
    assert commands == {
        "check": ["make check"],
        "site": ["make site"],
        "test": ["make test"],
        "macos": ["make test ARGS=tests/unit"],
        "kernels": ["make test-kernels"],
    }
    for (command,) in commands.values():
        assert re.search(rf"^{command.split()[1]}:", MAKEFILE, re.MULTILINE), command
    for job in jobs.values():
        assert 0 < job["timeout-minutes"] <= 60


def test_ci_may_only_read_and_takes_actions_of_one_major_version():
    workflow = read(CI)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        uses = [step["uses"] for step in job["steps"] if "uses" in step]
        assert uses
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in uses)


def test_ci_has_the_pythons_that_the_readme_names():
    pythons = read(CI)["jobs"]["test"]["strategy"]["matrix"]["python"]
    (named,) = re.findall(r"tested with ([\d., and]+\d)", (ROOT / "README.md").read_text())
    assert re.findall(r"\d\.\d+", named) == pythons == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_of_issues(path: Path):
    form = read(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    names = [field["id"] for field in fields]
    assert len(names) == len(set(names))
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_a_report_of_a_fault_asks_for_what_finds_it():
    text = (ROOT / ".github/ISSUE_TEMPLATE/bug_report.yml").read_text()
    for wanted in ("make plan", "manifest.json", "logs/", "configuration", "command"):
        assert wanted in text
    template = (ROOT / ".github/pull_request_template.md").read_text()
    for command in re.findall("`make ([a-z]+)`", template):
        assert re.search(rf"^{command}:", MAKEFILE, re.MULTILINE), command


def test_hooks_are_the_checks_of_make_in_the_versions_of_the_environment():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    pinned = re.findall(r"^(\S+)==", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)
    for hook in repository["hooks"]:
        assert hook["language"] == "system"  # so that no version stands here
        program, *arguments = hook["entry"].removeprefix(".venv/bin/").split()
        assert program in pinned
        command = " ".join([program, *(a for a in arguments if not a.startswith("--"))])
        assert re.search(rf"^\t  {command}\b", MAKEFILE, re.MULTILINE), command


@pytest.mark.parametrize("folder", ["results", "resources"])
def test_of_what_runs_make_git_keeps_only_the_page_that_explains_it(folder, tmp_path: Path):
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    git("init", root=tmp_path)
    for name in ("README.md", "tiny/README.md", "tiny/report.html", "report.html"):
        (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).touch()
    files = git("ls-files", "--others", "--exclude-standard", folder, root=tmp_path)
    assert files.split() == [f"{folder}/README.md"]
    assert (ROOT / folder / "README.md").is_file()
    # Experiments and data sets get folders here: none can have the name of the page.
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python("README.md")
