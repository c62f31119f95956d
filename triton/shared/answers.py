"""Answers of models that answer later, from another thread, by a request's response sender."""

import contextlib

import numpy as np
import triton_python_backend_utils as pb_utils


def send(sender, tensors):
    """The one answer: tensors of the server."""
    sender.send(
        pb_utils.InferenceResponse(tensors),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )


def send_flag(sender, name):
    """An answer whose one output says that something was done."""
    send(sender, [pb_utils.Tensor(name, np.array([True]))])


def fail(sender, message, code):
    """An error; `code` is one of pb_utils.TritonError."""
    sender.send(
        pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code)),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )


def fail_if_unanswered(sender, message, code):
    """The same where an answer may have gone out already: then the server has it."""
    with contextlib.suppress(Exception):
        fail(sender, message, code)
