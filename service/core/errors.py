"""Everything that can go wrong for a client, as a tree of exceptions.

::

    ConveyorError
    ├── InvalidInput            what was sent cannot be used; sending it again will not help
    │   ├── InvalidRequest      the message is not of the form that the wire defines
    │   ├── InvalidTimestep     the numbers do not fit the model: width, names, finiteness
    │   ├── InvalidSessionId    the id has characters or a length that are not allowed
    │   ├── InvalidRecord       bytes that are not a session record
    │   └── NonFiniteOutput     the model has no finite answer to this timestep
    ├── NotFound
    │   ├── SessionNotFound
    │   └── ModelNotFound
    ├── Conflict                what is there is not what the client believes
    │   ├── SessionExists
    │   ├── StepConflict        the step has been consumed, and more after it
    │   ├── StepGap             steps between the session's and the client's are missing
    │   ├── ReplayUnavailable   consumed, but its answer is no longer kept whole
    │   ├── ModelMismatch       the session belongs to another model, version or file
    │   └── QuotaExceeded       the tenant has as many sessions, or sockets, as it may
    ├── Unavailable             nothing is wrong with the request; `retry_after_s` says when to try again
    │   ├── Overloaded          the queue is full
    │   ├── RateLimited         who asks has asked for more than they may in that time
    │   ├── DeadlineExceeded    the step waited too long and was not run
    │   ├── ShuttingDown
    │   ├── StoreUnavailable    the state store cannot be reached, nothing advanced
    │   ├── StoreFull           the state store has no memory left, nothing advanced
    │   ├── AuthenticationUnavailable  nobody can tell whether a token is good: its issuer cannot be reached
    │   └── OutcomeUnknown      the store went away in the middle of a write: the step may have been applied
    │       └── MovedOn         and others have gone on since
    ├── Unauthenticated         who asks is not known, and would have to be
    ├── Forbidden               who asks is known, and may not
    └── InternalError           a defect here or in a model
        └── ModelFailed

An error carries a stable `code`, a sentence for people and the fields that a client can act on. It knows nothing of
HTTP: `service.api.problems` maps each class to a status and a WebSocket close code.
"""

from typing import Any, ClassVar


class ConveyorError(Exception):
    """Base of all errors that a client sees."""

    code: ClassVar[str]

    def __init__(self, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields


class InvalidInput(ConveyorError):
    code = "invalid_input"


class InvalidRequest(InvalidInput):
    code = "invalid_request"


class InvalidTimestep(InvalidInput):
    """Carries `expected_features`, the names in their order."""

    code = "invalid_timestep"


class InvalidSessionId(InvalidInput):
    code = "invalid_session_id"


class InvalidRecord(InvalidInput):
    code = "invalid_record"


class NonFiniteOutput(InvalidInput):
    code = "non_finite_output"


class NotFound(ConveyorError):
    code = "not_found"


class SessionNotFound(NotFound):
    code = "session_not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class Conflict(ConveyorError):
    code = "conflict"


class SessionExists(Conflict):
    code = "session_exists"


class StepConflict(Conflict):
    """Carries `current_step`."""

    code = "step_conflict"


class StepGap(Conflict):
    """Carries `current_step`."""

    code = "step_gap"


class ReplayUnavailable(Conflict):
    """Carries `current_step`."""

    code = "replay_unavailable"


class ModelMismatch(Conflict):
    code = "model_mismatch"


class QuotaExceeded(Conflict):
    """Carries `limit`. It is no `Unavailable`: to come back later helps nobody who keeps what they have."""

    code = "quota_exceeded"


class Unavailable(ConveyorError):
    """Carries `retry_after_s`, in seconds."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0, **fields: Any) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **fields)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    code = "overloaded"


class RateLimited(Unavailable):
    code = "rate_limited"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class StoreFull(Unavailable):
    code = "store_full"


class AuthenticationUnavailable(Unavailable):
    code = "authentication_unavailable"


class OutcomeUnknown(Unavailable):
    code = "outcome_unknown"

    def __init__(self, what: str, **fields: Any) -> None:
        """Say what happened; what follows from it is said here."""
        super().__init__(
            f"{what}; the step may have been applied: send it again with its step number to be told", **fields
        )


class MovedOn(OutcomeUnknown):
    """The session has moved on since a write whose reply was lost; `version` is that of the record in the store."""

    def __init__(self, what: str, version: bytes, **fields: Any) -> None:
        super().__init__(what, **fields)
        self.version = version


class Unauthenticated(ConveyorError):
    code = "unauthenticated"


class Forbidden(ConveyorError):
    """Carries `required_scope` where a scope is what is missing."""

    code = "forbidden"


class InternalError(ConveyorError):
    code = "internal_error"


class ModelFailed(InternalError):
    code = "model_failed"
