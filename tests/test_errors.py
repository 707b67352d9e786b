import pickle

from hilum.errors import GeometryError, HilumError, InputError, RecipeError, UsageError


def test_a_message_names_place_finding_wish_and_remedy() -> None:
    error = GeometryError("spacing 0 mm", where="ct.nii.gz", wanted="more than 0", fix="mend the header")
    assert str(error) == "ct.nii.gz: spacing 0 mm; wanted more than 0; mend the header"
    assert isinstance(error, InputError)


def test_wrong_use_exits_with_2_and_bad_input_with_1() -> None:
    assert UsageError("x").exit_code == RecipeError("x").exit_code == 2
    assert HilumError("x").exit_code == InputError("x").exit_code == 1


def test_errors_cross_process_borders_whole() -> None:
    error = GeometryError("found", where="place", wanted="wanted", fix="fix")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is GeometryError and str(again) == str(error) and again.fix == "fix"
