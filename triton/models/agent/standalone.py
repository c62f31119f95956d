"""Refuses models that would make ONNX Runtime open other files than their own.

A tensor may lie in another file, at any path that the model names, and a node `EPContext` names
one, too. Newer versions of ONNX Runtime refuse some of those paths, older ones none. So the bytes
of the model are walked here before it sees them. The package `onnx` is not needed: the format of
protobuf tells where each part begins and ends, and the numbers of fields are those of onnx.proto.
"""

# Kind of a message -> its fields that lead to tensors or nodes, and of which kind they are.
PARTS = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}  # fmt: skip
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_OP_TYPE = 4  # of NodeProto
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


def check_standalone(data):
    """Raise ValueError unless `data` may be a whole ONNX model, which names no other file.

    Whether it is a good model is for ONNX Runtime to say.
    """
    parts = [("ModelProto", 0, len(data))]  # no recursion: a model may be nested at will
    while parts:
        kind, position, end = parts.pop()
        while position < end:
            number, wire, value, start, position = _field(data, position, end)
            if kind == "TensorProto":
                outside = number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)
                if outside and wire in (_VARINT, _BYTES):
                    raise ValueError(
                        "the model keeps tensors in other files; allowed is a model in one file"
                    )
            is_op_type = kind == "NodeProto" and number == _OP_TYPE and wire == _BYTES
            if is_op_type and bytes(data[start:position]) == b"EPContext":
                raise ValueError("the model has a node EPContext, which may name other files")
            if wire == _BYTES and number in PARTS[kind]:
                parts.append((PARTS[kind][number], start, position))


def _field(data, position, end):
    """(number, wire type, value of a varint, start, end) of the field that begins at `position`."""
    first = position
    tag, position = _varint(data, position, end)
    number, wire, value, start = tag >> 3, tag & 7, 0, position
    if wire == _VARINT:
        value, position = _varint(data, position, end)
    elif wire == _BYTES:
        length, start = _varint(data, position, end)
        position = start + length
    elif wire in (_FIXED_64, _FIXED_32):
        position += 8 if wire == _FIXED_64 else 4
    else:
        raise _not_onnx(first)
    # Protobuf drops what a tag has beyond 32 bits: it would see another field than we do.
    if not 0 < tag < 1 << 32 or not number or position > end:
        raise _not_onnx(first)
    return number, wire, value, start, position


def _varint(data, position, end):
    value = 0
    for shift in range(0, 70, 7):
        if position == end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _not_onnx(position)


def _not_onnx(position):
    return ValueError(f"the model is not ONNX: its bytes make no sense at {position}")
