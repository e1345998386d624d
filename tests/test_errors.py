"""The error for a name that is not in a list: which name it suggests, and how much of the list it shows."""

import pytest

from dcil import errors


@pytest.mark.parametrize(
    "word, allowed, meant",
    [
        ("gpu", ("auto", "cpu", "cuda"), "cuda"),
        ("GPU", ("auto", "cpu", "cuda"), "cuda"),
        ("mps", ("auto", "cpu", "cuda"), "cpu"),
        ("fp32", ("float32", "float64", "tf32", "bf16"), "float32"),
        ("fp64", ("float32", "float64", "tf32", "bf16"), "float64"),
        ("bfloat16", ("float32", "float64", "tf32", "bf16"), "bf16"),
        ("gpu", ("gup", "cpu"), "gup"),
        ("cpuu", ("auto", "cpu", "cuda"), "cpu"),
    ],
)
def test_the_name_that_was_meant(word, allowed, meant):
    """A synonym comes before the most similar spelling, which can mean the opposite."""
    assert f"did you mean {meant!r}?" in str(errors.unknown("device", word, allowed))


def test_a_long_list_is_shown_in_part():
    """A short list is shown whole, a long one, such as a folder of records, by its beginning and its length."""
    names = [f"run{number:03}" for number in range(100)]
    assert str(errors.unknown("run", "x", names[:30])).endswith("run028, run029.")
    said = str(errors.unknown("run", "rnu042", names))
    assert said == "unknown run 'rnu042': did you mean 'run042'? Allowed: run000, run001, run002 and 97 more."


def test_a_long_list_suggests_only_what_is_nearly_the_same():
    """Run ids share most of their letters, so half a likeness means nothing."""
    names = [f"cifar10-resnet20-dcil-s0.9-e16-seed{number}" for number in range(100)]
    assert "did you mean" not in str(errors.unknown("record", "digits-resnet8-dcil-s0.9-e6-seed0-5acf601b", names))


def test_an_empty_list():
    assert str(errors.unknown("run", "x", [])) == "unknown run 'x': there is none yet."
