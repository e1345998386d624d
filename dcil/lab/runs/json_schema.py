"""The shape of a run record as a JSON Schema for other tools, generated from the checks in `dcil.records`."""

from __future__ import annotations

import math
from typing import Any

from dcil import records
from dcil.io.shapes import Named, Number, Text

NAMES = {str: "string", bool: "boolean", dict: "object"}


def _schema(shape: Any) -> dict[str, Any]:
    """Return a shape (`dcil.io.shapes`) as a schema."""
    match shape:
        case dict():
            return {
                "type": "object",
                "properties": {k.removesuffix("?"): _schema(v) for k, v in shape.items()},
                "required": [key for key in shape if not key.endswith("?")],
            }
        case [item]:
            return {"type": "array", "items": _schema(item)}
        case Named(each, most):
            return {"type": "object", "additionalProperties": _schema(each), "maxProperties": most}
        case Text(most):
            return {"type": "string", "maxLength": most}
        case Number(least, most, whole):
            limits = {"minimum": least, "maximum": most}
            return {"type": "integer" if whole else "number", **{k: v for k, v in limits.items() if math.isfinite(v)}}
        case _:
            return {"type": NAMES[shape]}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a run record.

    It says which fields there must be, with their types and bounds. `dcil records check` also checks that the run id
    follows from the configuration, and the final results from the curve.
    """
    schema = _schema(records.SHAPE)
    schema["properties"]["schema"]["maximum"] = records.SCHEMA
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A run record of dcil", **schema}
