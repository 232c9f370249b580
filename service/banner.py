"""What a person is told when the service is ready: where it is, what keeps the state, and a line to try."""

import json
import shlex

from service.core.ports import Model
from service.core.spec import Feature


def banner(base_url: str, store: str, models: list[Model], workers: int) -> str:
    """Return the text; the command in it works when pasted into a shell."""
    served = ", ".join(f"{model.ref.name}/{model.ref.version}" for model in models)
    lines = {"docs": f"{base_url}/docs", "sessions": store, "models": served}
    if workers > 1:
        lines["workers"] = str(workers)
    listed = "".join(f"    {name:<10}{value}\n" for name, value in lines.items())
    return f"\n  Conveyor listens on {base_url}\n{listed}\n  Try it:\n\n{_example(base_url, models[0])}\n"


def _example(base_url: str, model: Model) -> str:
    reading = {feature.name: _typical(feature) for feature in model.spec.features}
    session = f"{base_url}/v1/sessions/try"
    return (
        f"curl -s -X PUT {session} -d {shlex.quote(json.dumps({'model': model.ref.name}))} -o /dev/null "
        f"-H 'content-type: application/json' && "
        f"curl -s {session}/steps -d {shlex.quote(json.dumps({'x': reading}))}\n"
    )


def _typical(feature: Feature) -> float:
    """Return the middle of what the training rows held, as short as it is still meaningful."""
    low, high = feature.minimum, feature.maximum
    return 0.0 if low is None or high is None else float(f"{(low + high) / 2:.3g}")
