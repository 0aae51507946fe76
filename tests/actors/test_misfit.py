"""A value that does not go with the others says which field is to change, and to what."""

from actors.misfit import Misfit


def test_its_parts_can_be_read_one_by_one_and_its_text_says_what_should_be() -> None:
    misfit = Misfit("lo", 5.0, "at most hi, which is 1")
    assert (misfit.field, misfit.value, misfit.expected) == ("lo", 5.0, "at most hi, which is 1")
    assert str(misfit) == "lo at most hi, which is 1"
    assert isinstance(misfit, ValueError)  # what pydantic collects
