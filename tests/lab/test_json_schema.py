"""The JSON Schema and the checks of `dcil` agree about the shape of a record."""

import copy
import json

import jsonschema
import pytest

from dcil import records
from dcil.cli import main as cli
from dcil.errors import DcilError
from dcil.lab.checkout import root
from dcil.lab.runs import json_schema

CHECK = jsonschema.Draft202012Validator(json_schema.json_schema())
RECORDS = [run.raw for run in records.load_all(root() / "records")]


def test_every_record_fits():
    """A validator that knows nothing of `dcil` accepts all records of the book."""
    CHECK.check_schema(CHECK.schema)
    assert RECORDS and [error.message for record in RECORDS for error in CHECK.iter_errors(record)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("cost", "time_s"), "long"),
        (("curve", 0, "flips"), 1.5),
        (("environment", "dirty"), 0),
        (("schema",), True),
        (("masks", "stride"), "4"),
    ],
)
def test_both_refuse_the_same(path, value):
    """A wrong type is refused at any depth."""
    record = copy.deepcopy(next(r for r in RECORDS if "masks" in r))
    *way, last = path
    place = record
    for key in way:
        place = place[key]
    place[last] = value
    assert not CHECK.is_valid(record)
    with pytest.raises(DcilError, match=f"{last} must be "):
        records.validate(record)


def test_both_miss_what_is_missing():
    """A record without its environment is refused."""
    record = {key: value for key, value in RECORDS[0].items() if key != "environment"}
    assert not CHECK.is_valid(record)
    with pytest.raises(DcilError, match="environment is missing"):
        records.validate(record)


def test_the_command_prints_it(capsys):
    """`records schema` prints the schema as JSON."""
    assert cli.main(["records", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema.json_schema()
