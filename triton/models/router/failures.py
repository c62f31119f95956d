"""What kind of failure an answer is: whether another try may help, and whether the plan is ill."""

import re
from dataclasses import dataclass

# Kinds. A plan is blamed for the first four; a plan that has too much to do is not ill.
UNAVAILABLE, DEADLINE, BROKEN, INTERNAL = "UNAVAILABLE", "DEADLINE_EXCEEDED", "BROKEN", "INTERNAL"
BUSY, REJECTED, CANCELLED = "RESOURCE_EXHAUSTED", "REJECTED", "CANCELLED"
INVALID, REFUSED, SUBSET = "INVALID_ARGUMENT", "REFUSED", "SUBSET"
_BLAMED = {UNAVAILABLE, DEADLINE, BROKEN, INTERNAL}
_RETRYABLE = {UNAVAILABLE, DEADLINE, BROKEN, BUSY}

_OF_CODE = {
    "INVALID_ARG": INVALID,
    "INVALID_ARGUMENT": INVALID,
    "UNSUPPORTED": INVALID,
    "UNIMPLEMENTED": INVALID,
    "UNAVAILABLE": UNAVAILABLE,
    "NOT_FOUND": UNAVAILABLE,  # its models are being unloaded
    "RESOURCE_EXHAUSTED": BUSY,
    "ABORTED": UNAVAILABLE,
    "DEADLINE_EXCEEDED": DEADLINE,
    "CANCELLED": CANCELLED,
    "UNAUTHENTICATED": REFUSED,
    "PERMISSION_DENIED": REFUSED,
}
# Triton 24.10 answers every failed BLS call with INTERNAL: what happened stands in the text.
_CALL_FAILED = re.compile(r"attempt \d+: ([A-Z_]+) after")
_OF_TEXT = (
    (REFUSED, ("is restricted", "restricted protocol", "unauthenticated")),
    (SUBSET, ("unexpected deadlock",)),
    (BROKEN, ("stub process", "health mutex", "failed to process the request")),
    (DEADLINE, ("deadline exceeded", "deadline passed")),
    (UNAVAILABLE, ("is not ready", "not found", "unavailable")),
    (UNAVAILABLE, ("mailbox", "a tensor will not come", "request timeout expired", "unloaded")),
    (INVALID, ("onnxruntime:", "unexpected shape", "unexpected datatype", "invalid argument")),
)


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no answer."""

    kind: str
    text: str

    @property
    def may_retry(self):
        """Whether the same request may go to another plan, or once more to this one."""
        return self.kind in _RETRYABLE

    @property
    def blames_plan(self):
        """Whether it says something about the plan, not about the request."""
        return self.kind in _BLAMED


def classify(code, text):
    """The failure of an error with a code's name (of Triton or of gRPC) and a text."""
    lower = text.lower()
    if any(word in lower for word in _OF_TEXT[0][1]):  # comes as UNAVAILABLE; never tried again
        return Failure(REFUSED, text)
    if any(word in lower for word in _OF_TEXT[1][1]):
        return Failure(SUBSET, text)
    found = _CALL_FAILED.search(text)
    if found and found.group(1) in _OF_CODE:
        return Failure(_OF_CODE[found.group(1)], text)
    if code in _OF_CODE:
        return Failure(_OF_CODE[code], text)
    for kind, words in _OF_TEXT:
        if any(word in lower for word in words):
            return Failure(kind, text)
    return Failure(INTERNAL, text)
