"""How much the property tests try: the same few examples each time in the suite, many and new ones when asked for.

``pytest --hypothesis-profile=thorough`` tries `THOROUGH` times as many, other ones in every run.
"""

from hypothesis import HealthCheck, settings

_SUITE = settings.get_profile("default").max_examples
THOROUGH = 40

_SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
"""Real servers are slow and fixtures are shared by all examples: both are meant."""

settings.register_profile(
    "suite", max_examples=_SUITE, derandomize=True, database=None, deadline=None, suppress_health_check=_SLOW
)
settings.register_profile(
    "thorough", max_examples=_SUITE * THOROUGH, deadline=None, print_blob=True, suppress_health_check=_SLOW
)
settings.load_profile("suite")  # a profile that the command line names is loaded after this one


def examples(count: int, *, steps: int = 50) -> settings:
    """Return settings for `count` examples in the suite; those of a state machine take at most `steps` steps."""
    return settings(max_examples=count * settings.default.max_examples // _SUITE, stateful_step_count=steps)
