"""The work of `pdsynth train` in words, for a trial run (--dry-run)."""

from __future__ import annotations

from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method
from pdsynth.options import FitOptions
from pdsynth.recipes import RECIPES
from pdsynth.types import counted


def described_training(method: Method, recipe: str, pairs: Pairs, options: FitOptions) -> str:
    """A training in words: the pairs, the device, the parameters and the limit of the training steps.

    method: before its first step. recipe: its name. options: those of `train`, of which the device is resolved.
    """
    people = counted(pairs.train.participants, "participant")
    words = f"To train: {recipe} on {counted(len(pairs.train), 'pair')} of {people}"
    if not (stages := method.stages()):
        return f"{words}, in closed form"
    own = None if options.budget else method.default_steps(len(pairs.train)) or RECIPES[recipe].steps
    steps = options.steps or own
    limits = [counted(steps, "step")] if steps else []
    limits += [f"{options.budget:g} s of training steps"] if options.budget else []
    names = " and ".join(stage.name for stage in stages)
    number = sum(weight.numel() for weight in method.parameters())
    return (
        f"{words}, on {options.device}: {names}, {number:,} parameters, {' or '.join(limits)}, then fits in closed form"
    )
