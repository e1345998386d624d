"""The shape of a run record as a JSON Schema, made from the checks of `dcil.records`, for tools that are not `dcil`."""

from __future__ import annotations

from typing import Any

from dcil import records

NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object", type(None): "null"}


def _schema(shape: Any) -> dict[str, Any]:
    """Return the schema of a shape: a type, a tuple of types, [shape of each item] or {key: shape}."""
    if isinstance(shape, dict):
        return {"type": "object", "properties": {key: _schema(value) for key, value in shape.items()},
                "required": list(shape)}  # fmt: skip
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0])}
    return {"type": [NAMES[kind] for kind in shape] if isinstance(shape, tuple) else NAMES[shape]}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a run record.

    It says which fields there must be and of which type. `dcil records check` asks for more: that the run id follows
    from the configuration, and the end from the curve.
    """
    schema = _schema(records.SHAPE)
    schema["properties"] |= {key: _schema(shape) for key, shape in records.OPTIONAL.items()}
    schema["properties"]["schema"]["maximum"] = records.SCHEMA
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A run record of dcil", **schema}
