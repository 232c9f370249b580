"""The wire's messages as OpenAPI describes them, and the bodies of the routes that are not in a hurry."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from service.core.ports import Model
from service.core.session import Session, SessionKey

StepNumber = Annotated[int, Field(ge=1, le=2**53 - 1)]
Row = list[float]
_READING = [0.77, 11.5, 54.4, 75.8, 1.0, 0.0, 1.0, 0.0]
Nested = TypeAliasType("Nested", "float | list[Nested]")
Version = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$", examples=["1"])]
SessionId = Annotated[
    str,
    Field(
        examples=["pump-7"],
        description="1 to 128 of `A-Z a-z 0-9 . _ ~ : @ -`, except `.` and `..` alone",
    ),
]


class Message(BaseModel):
    """Base of all messages: a field that nobody knows is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Problem(BaseModel):
    """An error (RFC 9457). Further fields say what a client can act on."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    type: str = Field(examples=["urn:conveyor:error:step_gap"])
    title: str = Field(examples=["Step gap"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["step 9 was sent to a session at step 4; the next is 5"])
    code: str = Field(examples=["step_gap"])
    """Stable name of the error, for programs."""
    current_step: int | None = Field(None, examples=[4])
    """Where the session is (`step_conflict`, `step_gap`, `replay_unavailable`, `session_exists`)."""
    retry_after_s: float | None = None
    """When to try again, seconds (all 429 and 503)."""
    expected_features: list[str] | None = None
    """The names of a timestep's numbers in their order (`invalid_timestep`)."""


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class OpenSession(Message):
    model_config = _example(model="hotspot", ttl_s=86400)

    model: str = Field(examples=["hotspot"])
    version: Version | None = None
    """Unset: the latest."""
    ttl_s: Annotated[int, Field(gt=0)] | None = None
    """Seconds to live after the last timestep. Unset: the service's default."""
    history: list[Row] | None = None
    """Timesteps that prime the session's memory, oldest first. Ignored where the session exists."""


class CreateSession(OpenSession):
    model_config = _example(model="hotspot", session_id="pump-7", history=[_READING, _READING])

    session_id: SessionId | None = None
    """Unset: the service chooses one."""


class ForkSession(Message):
    model_config = _example(session_id="pump-7-copy")

    session_id: SessionId | None = None
    """Name of the copy. Unset: the service chooses one."""
    ttl_s: Annotated[int, Field(gt=0)] | None = None
    """Seconds to live after the last timestep. Unset: the original's."""


class SessionInfo(Message):
    session_id: SessionId
    model: str
    version: Version
    step: int
    """Count of timesteps consumed."""
    expires_at: datetime
    outputs: dict[str, Nested] | None = None
    """The outputs of the last timestep, unless there was none."""


class SessionList(Message):
    sessions: list[SessionInfo]
    cursor: str | None
    """Asks for the next page; null on the last. A page may hold fewer than `limit` and not be the last."""


class StepRequest(Message):
    model_config = _example(x=_READING, step=1)

    x: Row | list[Row] | dict[str, float]
    """A timestep as numbers in the order of the model's features or by their names, or a chunk of timesteps."""
    step: StepNumber | None = None
    """The number that the (first) timestep is expected to become: makes a retry harmless."""
    outputs: Literal["last", "all"] = "last"
    """Of a chunk, the outputs of the last timestep, or of each (with a time axis in front)."""


class StepAnswer(Message):
    session_id: str
    step: int
    """Count of timesteps that the session has consumed now."""
    replayed: bool
    """Whether this is the stored answer to a step that was consumed before."""
    outputs: dict[str, Nested]


class AddressedStepRequest(StepRequest):
    model_config = _example(session_id="pump-7", x=_READING, step=1)

    session_id: str


class ManyStepsRequest(Message):
    model_config = _example(
        steps=[{"session_id": "pump-7", "x": _READING, "step": 1}, {"session_id": "pump-8", "x": _READING}]
    )

    steps: list[AddressedStepRequest]


class StepFailure(Message):
    session_id: str | None
    error: Problem


class ManyStepsAnswer(Message):
    results: list[StepAnswer | StepFailure]
    """In the order of the steps."""


class FeatureInfo(Message):
    name: str
    unit: str
    minimum: float | None
    maximum: float | None


class AxisInfo(Message):
    name: str
    labels: list[str | float | int]


class OutputInfo(Message):
    name: str
    unit: str
    axes: list[AxisInfo]


class StateInfo(Message):
    name: str
    shape: list[int]


class ModelInfo(Message):
    model: str
    version: Version
    versions: list[Version]
    """All that are served, the latest last."""
    digest: str
    """The first 8 bytes of the file's SHA-256, hexadecimal."""
    description: str
    sampling_period_s: float | None
    """Seconds between two timesteps, as the model was trained."""
    features: list[FeatureInfo]
    outputs: list[OutputInfo]
    states: list[StateInfo]
    metrics: dict[str, Any]
    training: dict[str, Any]


class ModelList(Message):
    models: list[ModelInfo]


class ModelFailure(Message):
    path: str
    reason: str


class Readiness(Message):
    """Where who asks has to say who they are, all but `ready` is for those who may read the metrics."""

    ready: bool
    store: str | None = None
    """What keeps the sessions, or why it cannot be used."""
    models: list[str] = []
    failed_models: list[ModelFailure] = []
    warnings: list[str] = []


class Liveness(Message):
    status: Literal["ok"] = "ok"


def model_info(model: Model, versions: list[str]) -> ModelInfo:
    spec = model.spec
    return ModelInfo(
        model=model.ref.name,
        version=model.ref.version,
        versions=versions,
        digest=model.ref.digest.hex(),
        description=spec.description,
        sampling_period_s=spec.sampling_period_s,
        features=[FeatureInfo(name=f.name, unit=f.unit, minimum=f.minimum, maximum=f.maximum) for f in spec.features],
        outputs=[
            OutputInfo(
                name=output.name,
                unit=output.unit,
                axes=[AxisInfo(name=axis.name, labels=list(axis.labels)) for axis in output.axes],
            )
            for output in spec.outputs
        ],
        states=[StateInfo(name=state.name, shape=list(state.shape)) for state in spec.states],
        metrics=dict(spec.metrics),
        training=dict(spec.training),
    )


def session_info(key: SessionKey, session: Session) -> SessionInfo:
    """Describe a session, without its outputs."""
    return SessionInfo(
        session_id=key.session_id,
        model=session.model.name,
        version=session.model.version,
        step=session.step,
        expires_at=datetime.fromtimestamp(session.expires_at_ms / 1000, UTC),
    )
