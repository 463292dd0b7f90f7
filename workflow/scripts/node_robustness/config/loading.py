"""A checked configuration from what Snakemake read, and one line for each mistake."""

import difflib
import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import (
    ValidationError,
)
from pydantic_core import ErrorDetails

from node_robustness.config.config import Config
from node_robustness.config.methods import METHOD, METHODS
from node_robustness.config.models import KIND
from node_robustness.config.values import (
    MAP,
    ONE,
    PATTERNS,
    with_nulls,
)
from node_robustness.errors import UserError
from node_robustness.words import listed


def load(raw: Mapping[str, Any]) -> Config:
    """Check a configuration as Snakemake read it.

    Raises:
        UserError: with one line for every mistake, each naming its key and the remedy.
    """
    try:
        return Config.model_validate(with_nulls(raw))
    except ValidationError as error:
        lines = dict.fromkeys(_line(detail) for detail in error.errors())
        raise UserError("\n".join(lines)) from None


def _line(detail: ErrorDetails) -> str:
    """One mistake as one line: `config: key.path: what is wrong and the remedy`."""
    tagged = [part for part in detail["loc"] if part not in (ONE, MAP)]
    if detail["type"].startswith("union_tag_") and isinstance(detail["input"], dict):
        tagged.append("method")
    location = [part for part in tagged if not str(part).startswith((METHOD, KIND))]
    keys = location[:-1] if len(location) > 1 and location[-1] == "[key]" else location
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in keys)
    where = " ".join(where.removeprefix(".").split())
    given = _shown(detail["input"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden" if location[0] == "experiments" and keys[-1] == "pace":
            message = "is no longer a key: remove it (benchmarks/speed.py times the paper's attack)"
        case "extra_forbidden":
            known = _keys_next_to(tagged)
            close = difflib.get_close_matches(str(keys[-1]), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            message = f"unknown key; {hint}"
        case "missing" if isinstance(keys[-1], int):
            message = "is missing: the list is too short"
        case "missing":
            message = "this key is missing; see docs/reference/configuration.md"
        case "greater_than":
            message = f"{given} must be greater than {context['gt']:g}"
        case "greater_than_equal":
            message = f"{given} must be {context['ge']:g} or more"
        case "less_than":
            message = f"{given} must be less than {context['lt']:g}"
        case "less_than_equal":
            message = f"{given} must be {context['le']:g} or less"
        case "list_type" | "tuple_type":
            message = f"must be a list, such as [a, b] (given: {given})"
        case "union_tag_not_found" if keys[-1] == "method":
            message = "this key is missing; see docs/reference/configuration.md"
        case "union_tag_invalid":
            chosen = _shown(detail["input"]["method"])
            known_methods = listed([*map(repr, METHODS)], "or")
            message = f"{chosen} is not known; choose from {known_methods}"
        case "dict_type" | "model_type" | "union_tag_not_found":
            message = f"must be a map of keys (given: {given})"
        case "string_type" if keys != location:
            message = "this name must be text: put it in quotes"
        case "invalid_key":
            message = "keys must be text: remove this one, or put it in quotes"
        case "string_type":
            message = f"must be text, in quotes if necessary (given: {given})"
        case "bool_type" | "bool_parsing":
            message = f"must be true or false (given: {given})"
        case "too_short":
            message = "is empty: list at least one"
        case "too_long":
            message = f"must have {context['max_length']} entries (given: {given})"
        case "string_too_long":
            message = f"{given} is too long: use at most {context['max_length']} characters"
        case "literal_error":
            message = f"{given} is not known; choose from {context['expected']}"
        case "string_pattern_mismatch":
            message = f"{given} does not fit: write {PATTERNS[context['pattern']]}"
        case "value_error":
            message = str(context["error"])
        case _:
            message = f"{detail['msg']} (given: {given})"
    return f"config: {where}: {message}" if where else f"config: {message}"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    return f"{value:g}" if isinstance(value, float) else reprlib.repr(value)


def _keys_next_to(location: list[int | str]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    schema = Config.model_json_schema()
    node: dict[str, Any] = schema
    for part in [*location[:-1]]:
        if str(part).startswith(METHOD):
            node = _of_method(schema, node, str(part).removeprefix(METHOD))
            continue
        if str(part).startswith(KIND):
            node = schema["$defs"][str(part).removeprefix(KIND)]
            continue
        node = _resolve(schema, node)
        properties = node.get("properties", {})
        if part in properties:
            node = properties[part]
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
        else:
            node = next(iter(node.get("patternProperties", {}).values()), {})
    return list(_resolve(schema, node).get("properties", {}))


def _of_method(schema: dict[str, Any], node: dict[str, Any], method: str) -> dict[str, Any]:
    """The form of an attack that has a method."""
    forms = (_resolve(schema, form) for form in node["oneOf"])
    return next(form for form in forms if form["properties"]["method"]["const"] == method)


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in [node, *node.get("anyOf", []), *node.get("allOf", [])]:
        if "$ref" in option:
            found: dict[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[1]]
            return found
    return node
