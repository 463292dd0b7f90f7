"""Specifications of charts, compared with the schema of Vega-Lite."""

import json
from collections.abc import Iterator
from typing import Any

import altair as alt
from jsonschema import Draft7Validator, ValidationError, validators

from node_robustness.figures.copies import shared_parts

_KEYWORDS = dict(Draft7Validator.VALIDATORS)
_ERRORS: dict[tuple[str, str], list[ValidationError]] = {}


def spec_of(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The specification of a chart, which is a valid one.

    Charts have most parts in common, and the schema has several places for each part. Each part is
    compared with each definition once, which takes a small share of the time that Altair takes.
    """
    with shared_parts():
        spec: dict[str, Any] = chart.to_dict(validate=False)
    schema = chart._schema | {"definitions": chart._rootschema["definitions"]}
    _Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER).validate(spec)
    return spec


def _errors(
    validator: Draft7Validator, reference: str, part: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    known = reference, json.dumps(part)
    if known not in _ERRORS:
        _ERRORS[known] = list(_KEYWORDS["$ref"](validator, reference, part, schema))
    yield from _ERRORS[known]


_Validator = validators.extend(Draft7Validator, {"$ref": _errors})
