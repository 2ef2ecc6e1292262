"""What is raised in one process and told in another."""

import pickle

from pdsynth.types import InputError


def test_an_input_error_survives_the_way_between_processes():
    error = InputError("a.nii.gz", "is truncated", "copy it again")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and vars(again) == vars(error)


def test_the_message_of_an_input_error_is_one_line():
    error = InputError("a.tsv", "is not a table (line 3\nsaw 7)", "save it again")
    assert str(error) == "a.tsv: is not a table (line 3 saw 7). Remedy: save it again."
    assert error.problem == "is not a table (line 3 saw 7)"
