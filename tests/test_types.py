"""What is raised in one process and told in another."""

import pickle

from pdsynth.types import InputError


def test_an_input_error_survives_the_way_between_processes():
    error = InputError("a.nii.gz", "is truncated", "copy it again")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and vars(again) == vars(error)
