"""The work of `pdsynth train` in words: before it, for a trial run (--dry-run), and after it."""

from __future__ import annotations

from typing import Any

from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method
from pdsynth.options import FitOptions
from pdsynth.recipes import full_steps
from pdsynth.types import counted


def described_training(method: Method, recipe: str, pairs: Pairs, options: FitOptions) -> str:
    """A training in words: the pairs, the device, the parameters and the limit of the training steps.

    method: before its first step. recipe: its name. options: those of `train`, of which the device is resolved.
    """
    people = counted(pairs.train.participants, "participant")
    words = f"To train: {recipe} on {counted(len(pairs.train), 'pair')} of {people}"
    if not (stages := method.stages()):
        return f"{words}, in closed form"
    own = None if options.budget else full_steps(method, recipe, len(pairs.train))
    steps = options.steps or own
    limits = [counted(steps, "step")] if steps else []
    limits += [f"{options.budget:g} s of training steps"] if options.budget else []
    names = " and ".join(stage.name for stage in stages)
    number = sum(weight.numel() for weight in method.parameters())
    return (
        f"{words}, on {options.device}: {names}, {number:,} parameters, {' or '.join(limits)}, then fits in closed form"
    )


def described_steps(card: dict[str, Any], full: int | None) -> str:
    """The steps of a training in words, for a message about its model; "" for a fit in closed form.

    card: of the model. full: the number of steps of a full training, if there is one.

    >>> described_steps({"precision": "32-true", "steps_done": 190, "seconds": 60.8}, 6000)
    ', trained in 32-true for 190 of 6000 steps (0.32 s per step),'
    """
    if not (steps := card.get("steps_done")):
        return ""
    share = f"{steps} of {full}" if full and steps < full else f"{steps}"
    return f", trained in {card['precision']} for {share} steps ({card['seconds'] / steps:.2g} s per step),"
