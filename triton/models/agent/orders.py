"""What the agent may be asked for, checked before anything is done.

An order is a JSON object with the key `op`; the other keys are in `_OPS`. Unknown keys, wrong types
and values out of range are refused, with the reason.
"""

import json
import math
import re
import sys

MAX_ORDER_BYTES = 1 << 20
_MAX_RUNS = 100_000
_MAX_NAME = 1000
_MAX_VALUES = 65_536
_MAX_RANK = 32
_TRITON_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
# Bytes of an element, by Triton's names of types.
ITEM_BYTES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2,
    "INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip
_LARGEST_FLOAT = {"FP16": 65504.0, "FP32": 3.4028234663852886e38, "FP64": sys.float_info.max}


class Refused(Exception):
    """The order is not carried out; the message says why."""


class PeerFailed(Exception):
    """Another server did not do what an order needs of it; the message names it."""


class Limits:
    """How much one order may take: bytes of a payload, of all inputs or of all messages that are
    under way at once, and seconds."""

    def __init__(self, max_payload_bytes, time_limit_s, peers):
        self.max_payload_bytes = max_payload_bytes
        self.time_limit_s = time_limit_s
        self.peers = frozenset(peers)


def parse_order(text, limits):
    """The order as a dict with all keys of its operation; raises Refused."""
    if len(text) > MAX_ORDER_BYTES:
        raise Refused(f"the order has {len(text)} bytes; allowed are {MAX_ORDER_BYTES}")
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused("the order is not JSON, or nested too deeply") from None
    if not isinstance(data, dict):
        raise Refused("the order is not a JSON object")
    op = data.pop("op", None)
    if not isinstance(op, str) or op not in _OPS:
        raise Refused(f"op {_shown(op)} is unknown; allowed are {', '.join(_OPS)}")
    fields = _OPS[op]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        known = ", ".join(fields) or "none"
        raise Refused(f"{op}: unknown key {_shown(unknown[0])}; allowed are {known}")
    order = {"op": op}
    for key, (check, default) in fields.items():
        if key not in data and default is _REQUIRED:
            raise Refused(f"{op}: {key} is missing")
        order[key] = check(f"{op}: {key}", data[key], limits) if key in data else default
    _check_limit(order, limits)
    if op == "probe":
        _check_together(order, limits)
    return order


def check_payload(order, size_bytes, limits):
    """Raise Refused unless a payload of that size (None: there is none) fits the order."""
    if size_bytes is None:
        if order["op"] in ("take", "measure"):
            raise Refused(f"{order['op']}: the payload is missing")
        return
    if order["op"] not in ("take", "measure"):
        raise Refused(f"{order['op']}: takes no payload")
    if size_bytes > limits.max_payload_bytes:
        raise Refused(
            f"the payload has {size_bytes} bytes; this agent takes {limits.max_payload_bytes}"
        )


def _check_limit(order, limits):
    if "limit_s" in order:
        wanted = order["limit_s"]
        order["limit_s"] = limits.time_limit_s if wanted is None else wanted


def _check_together(order, limits):
    """All messages that are under way at once lie in the agent's memory."""
    total = order["in_flight"] * max(order["bytes"])
    if total > limits.max_payload_bytes:
        raise Refused(
            f"probe: {order['in_flight']} messages of {max(order['bytes'])} bytes at once; this "
            f"agent takes {limits.max_payload_bytes} bytes at once"
        )


def _no_constant(name):
    """NaN and Infinity, which Python reads though JSON has none."""
    raise ValueError(name)


def _shown(value):
    try:
        text = json.dumps(value)
    except RecursionError:  # it was just short of too deep when it was read
        return "a deeply nested value"
    return text if len(text) <= 60 else text[:57] + "..."


def _number(low, high, kind=int):
    allowed = (int,) if kind is int else (int, float)

    def check(what, value, _limits):
        if type(value) not in allowed or not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            raise Refused(f"{what}: {_shown(value)}; allowed is {noun} from {low} to {high}")
        return value

    return check


def _limit_s(what, value, limits):
    return _number(0.01, limits.time_limit_s, float)(what, value, limits)


def _flag(what, value, _limits):
    if type(value) is not bool:
        raise Refused(f"{what}: {_shown(value)}; allowed are true and false")
    return value


def _peer(what, value, limits):
    if not isinstance(value, str) or value not in limits.peers:
        known = ", ".join(sorted(limits.peers)) or "none"
        raise Refused(f"{what}: {_shown(value)} is no peer of this server; known are {known}")
    return value


def _provider(what, value, _limits):
    if value not in ("cpu", "openvino", "cuda"):
        raise Refused(f"{what}: {_shown(value)}; allowed are cpu, openvino, cuda")
    return value


def _model_name(what, value, _limits):
    if not isinstance(value, str) or not _TRITON_NAME.fullmatch(value):
        raise Refused(
            f"{what}: {_shown(value)}; allowed are letters, digits, '_', '.' and '-', a letter or "
            "digit first"
        )
    return value


def _sizes(what, value, limits):
    if not isinstance(value, list) or not 1 <= len(value) <= 10_000:
        raise Refused(f"{what}: {_shown(value)}; allowed is a list of 1 to 10000 sizes")
    each = _number(1, limits.max_payload_bytes)
    return [each(what, item, limits) for item in value]


def _inputs(what, value, limits):
    """Checked {name: {datatype, shape, values}}; names are data and never used in paths."""
    if not isinstance(value, dict):
        raise Refused(f"{what}: {_shown(value)}; allowed is an object of inputs by name")
    found = {name: _input(f"{what}.{_shown(name)}", name, x) for name, x in value.items()}
    # A size of 0 counts as 1: the other sizes must be ones that an array can have, too.
    total = sum(
        ITEM_BYTES[x["datatype"]] * math.prod(max(1, size) for size in x["shape"])
        for x in found.values()
    )
    if total > limits.max_payload_bytes:
        raise Refused(
            f"{what}: inputs of {total} bytes; this agent takes {limits.max_payload_bytes}"
        )
    return found


def _names(what, value, _limits):
    good = isinstance(value, list) and 1 <= len(value) <= 10_000
    if not good or not all(isinstance(x, str) and _is_name(x) for x in value):
        raise Refused(f"{what}: {_shown(value)}; allowed is a list of names")
    return value


def _is_name(text):
    """Half of a surrogate pair, which JSON allows, is no text that could be passed on."""
    half = any("\ud800" <= character <= "\udfff" for character in text)
    return 1 <= len(text) <= _MAX_NAME and not half


def _input(what, name, value):
    keys = {"datatype", "shape", "values"}
    if not _is_name(name):
        raise Refused(f"{what}: allowed are names of 1 to {_MAX_NAME} characters of Unicode")
    if not isinstance(value, dict) or not {"datatype", "shape"} <= set(value) <= keys:
        raise Refused(f"{what}: {_shown(value)}; allowed are datatype, shape and values")
    if not isinstance(value["datatype"], str) or value["datatype"] not in ITEM_BYTES:
        known = ", ".join(ITEM_BYTES)
        raise Refused(f"{what}.datatype: {_shown(value['datatype'])}; allowed are {known}")
    shape = value["shape"]
    good = isinstance(shape, list) and len(shape) <= _MAX_RANK
    if not good or not all(type(x) is int and 0 <= x < 2**40 for x in shape):
        raise Refused(f"{what}.shape: {_shown(shape)}; allowed is a list of sizes")
    values = value.get("values")
    if values is not None:
        _check_values(f"{what}.values", values, value["datatype"], math.prod(shape))
    return {"datatype": value["datatype"], "shape": shape, "values": values}


def _check_values(what, values, datatype, count):
    if not isinstance(values, list) or len(values) != count or count > _MAX_VALUES:
        raise Refused(
            f"{what}: allowed is a flat list, here of {_shown(count)} numbers, of at most "
            f"{_MAX_VALUES}"
        )
    kinds, low, high = _range_of(datatype)
    for value in values:
        if type(value) not in kinds or not low <= value <= high:
            raise Refused(
                f"{what}: {_shown(value)} is no {datatype}; allowed are "
                f"{' and '.join(kind.__name__ for kind in kinds)} from {low} to {high}"
            )


def _range_of(datatype):
    """(types of Python, lowest, highest) of the values of a datatype."""
    if datatype == "BOOL":
        return (bool, int), 0, 1
    if datatype in _LARGEST_FLOAT:
        return (float, int), -_LARGEST_FLOAT[datatype], _LARGEST_FLOAT[datatype]
    bits = 8 * ITEM_BYTES[datatype]
    if datatype.startswith("U"):
        return (int,), 0, 2**bits - 1
    return (int,), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


_REQUIRED = object()
_COUNT = _number(1, _MAX_RUNS)
# Operation -> its keys, each with its check and its default.
_OPS = {
    "facts": {"power_s": (_number(0, 10, float), 0)},
    "take": {},
    "ping": {
        "server": (_peer, _REQUIRED),
        "repeats": (_COUNT, 1),
        "limit_s": (_limit_s, None),
    },
    "probe": {
        "server": (_peer, _REQUIRED),
        "bytes": (_sizes, _REQUIRED),
        "in_flight": (_number(1, 16), 1),
        "idle_s": (_number(0, 60, float), 0),
        "limit_s": (_limit_s, None),
    },
    "measure": {
        "inputs": (_inputs, _REQUIRED),
        "provider": (_provider, "cpu"),
        "threads": (_number(1, 1024), 1),
        "warmup": (_number(0, _MAX_RUNS), 10),
        "runs": (_COUNT, 20),
        "idle_s": (_number(0, 60, float), 0),
        "profile": (_flag, False),
        "limit_s": (_limit_s, None),
    },
    "serve": {
        "model": (_model_name, _REQUIRED),
        "inputs": (_inputs, _REQUIRED),
        "outputs": (_names, _REQUIRED),
        "runs": (_COUNT, 1),
        "limit_s": (_limit_s, None),
    },
}
