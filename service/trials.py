"""The trials of the models that a process is to serve, as its settings say."""

import os

from service.adapters.model_trial import Trial, Trials
from service.memory_limit import available_bytes
from service.settings import Settings


def begin_trials(settings: Settings, *, max_batch: int) -> Trials | None:
    """Begin to try out each model in a process of its own, where that is on."""
    if not settings.model_trial_s:
        return None
    trial = Trial(max_batch, settings.max_model_bytes, settings.model_trial_bytes, settings.model_trial_s)
    return Trials(settings.models, trial, at_once=trials_at_once(settings))


def trials_at_once(settings: Settings) -> int:
    """Return how many models a process may try out side by side: one per processor, where each has the memory that it
    may take."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, available_bytes() // settings.model_trial_bytes) // settings.workers)
