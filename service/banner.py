"""What a person is told when the service is ready: where it is, what keeps the state, and a line to try."""

import json
import shlex

from service.core.ports import Model
from service.core.spec import Feature


def banner(base_url: str, store: str, models: list[Model], workers: int, *, authenticated: bool) -> str:
    """Return the text; the command in it works when pasted into a shell.

    Where who asks has to say who they are, the shell has a key or token of theirs in `KEY`.
    """
    served = ", ".join(f"{model.ref.name}/{model.ref.version}" for model in models)
    lines = {"docs": f"{base_url}/docs", "sessions": store, "models": served}
    if authenticated:
        lines["access"] = "with an API key or a token; below, put yours into KEY"
    if workers > 1:
        lines["workers"] = str(workers)
    listed = "".join(f"    {name:<10}{value}\n" for name, value in lines.items())
    return (
        f"\n  Conveyor listens on {base_url}\n{listed}\n  Try it:\n\n{_example(base_url, models[0], authenticated)}\n"
    )


def _example(base_url: str, model: Model, authenticated: bool) -> str:
    curl = 'curl -s -H "authorization: Bearer $KEY"' if authenticated else "curl -s"
    reading = {feature.name: _typical(feature) for feature in model.spec.features}
    session = f"{base_url}/v1/sessions/try"
    return (
        f"{curl} -X PUT {session} -d {shlex.quote(json.dumps({'model': model.ref.name}))} -o /dev/null "
        f"-H 'content-type: application/json' && "
        f"{curl} {session}/steps -d {shlex.quote(json.dumps({'x': reading}))}\n"
    )


def _typical(feature: Feature) -> float:
    """Return the middle of what the training rows held, as short as it is still meaningful."""
    low, high = feature.minimum, feature.maximum
    return 0.0 if low is None or high is None else float(f"{(low + high) / 2:.3g}")
