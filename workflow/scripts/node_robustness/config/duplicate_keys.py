"""Keys that stand twice in a configuration: the readers of YAML and JSON keep the last one alone.

Snakemake has read the files before any of our code runs, so they are read once more, as text.
Like `config`, this module must import quickly.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from node_robustness.errors import UserError

_OPTIONS = (("--config", "-C"), ("--configfile", "--configfiles"))
_MERGE = "tag:yaml.org,2002:merge"
_ONLY_IN_JSON = re.compile(r"\\(?:(/|u[dD][89a-fA-F])|.)")
# In C where that is there, which Snakemake does not promise.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_files(paths: Iterable[Path | str]) -> None:
    """Refuse files of a configuration, YAML or JSON, in which a key stands twice.

    Raises:
        UserError: with one line for every such key, which names its lines.
    """
    lines = [line for path in paths for line in _of_file(Path(path))]
    if lines:
        raise UserError("\n".join(lines))


def check_arguments(arguments: Iterable[str]) -> None:
    """Refuse values of `--config`, such as `datasets={...}`, that set a key twice, in one or two.

    Raises:
        UserError: there is such a key.
    """
    seen: set[str] = set()
    for argument in arguments:
        name, _, value = argument.partition("=")
        for key, _ in _twice(value):
            raise UserError(f"config: --config {name}: {key} stands twice: remove one of the two")
        # Snakemake merges what two of one name set.
        for key in _leaves(name, value):
            if key in seen:
                raise UserError(f"config: --config: {key} stands twice: remove one of the two")
            seen.add(key)


def check_options(arguments: Iterable[str]) -> None:
    """Refuse `--config` or `--configfile` twice on a command line: Snakemake takes the last alone.

    Raises:
        UserError: one of them stands more than once.
    """
    options = [argument.partition("=")[0] for argument in arguments]
    for names in _OPTIONS:
        if sum(options.count(name) for name in names) > 1:
            raise UserError(
                f"{names[0]} stands more than once on the command line, and only the last would "
                f"count: write all after one {names[0]}"
            )


def _leaves(name: str, text: str) -> Iterator[str]:
    """The keys that a value of `--config` sets, each with those that it lies in."""
    values: list[tuple[str, object]] = [(name, None)]
    with suppress(yaml.YAMLError):
        values = [(name, yaml.load(text, Loader=yaml.BaseLoader))]
    for path, value in values:  # which grow meanwhile
        if isinstance(value, dict) and value:
            values += [(f"{path}.{key}", own) for key, own in value.items()]
        else:
            yield path


def _of_file(path: Path) -> Iterator[str]:
    for key, numbers in _twice(path.read_text(encoding="utf-8")):
        *others, last = map(str, dict.fromkeys(numbers))
        where = f"lines {', '.join(others)} and {last}" if others else f"line {last}"
        yield (
            f"config: {path}: {key} stands more than once, in {where}, and only the last would "
            "count: keep one"
        )


def _twice(text: str) -> list[tuple[str, list[int]]]:
    """The keys that stand more than once in one map, with their lines, in YAML or JSON."""
    with suppress(ValueError):
        json.loads(text)
        # Of what JSON may hold YAML takes no tabs, and none of these escapes.
        text = _ONLY_IN_JSON.sub(lambda m: f"\\{m[0]}" if m[1] else m[0], text.replace("\t", " "))
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError:
        return []  # it is plain text, or Snakemake has refused it
    found: defaultdict[tuple[int, str, str], list[int]] = defaultdict(list)
    paths: dict[tuple[int, str, str], str] = {}
    seen: set[int] = set()
    nodes = [("", root)]
    for path, node in nodes:  # which grow meanwhile
        # An alias is the node that it stands for, which may be one that it lies in.
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += [(f"{path}[{i}]", item) for i, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                own = f"{path}.{key.value}".removeprefix(".")
                nodes.append((own, value))
                # What `<<` brings may be replaced, and there may be several.
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    found[id(node), key.tag, key.value].append(key.start_mark.line + 1)
                    paths[id(node), key.tag, key.value] = own
    repeated = [(paths[key], lines) for key, lines in found.items() if len(lines) > 1]
    return sorted(repeated, key=lambda item: item[1])
