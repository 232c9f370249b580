"""ONNX files that mean harm, each a small model that works but for one thing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.adapters.graphs import accumulator, tensor

EVIL = "evil"


def outside(location: str) -> onnx.ModelProto:
    """Its gain is in another file."""
    model = accumulator()
    _outsource(next(item for item in model.graph.initializer if item.name == "gain"), location)
    return model


def _outsource(numbers: TensorProto, location: str) -> None:
    numbers.ClearField("raw_data")
    numbers.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        numbers.external_data.add(key=key, value=value)


def outside_in_an_attribute() -> onnx.ModelProto:
    model = accumulator()
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([1], np.float32)))
    _outsource(constant.attribute[0].t, "/etc/passwd")
    model.graph.node.insert(0, constant)
    return model


def outside_in_a_function() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(np.array([1], np.float32)))
    _outsource(constant.attribute[0].t, "../../../etc/passwd")
    return _with_functions({"F": [constant]}, "F")


def outside_in_a_branch() -> onnx.ModelProto:
    numbers = numpy_helper.from_array(np.array([1], np.float32), "w")
    _outsource(numbers, "/etc/passwd")
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["b"])], "b", [], [tensor("b", [1])], [numbers])
    model = accumulator()
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.insert(0, helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch))
    return model


def of_another_domain() -> onnx.ModelProto:
    model = accumulator()
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    model.graph.node[4].domain = "evil.ops"
    return model


def calling_itself() -> onnx.ModelProto:
    return _with_functions({"F": [_call("F")]}, "F")


def calling_in_a_circle() -> onnx.ModelProto:
    return _with_functions({"F": [_call("G")], "G": [_call("F")]}, "F")


def ten_to_the(power: int) -> onnx.ModelProto:
    """Functions that call the one before ten times each."""
    bodies: dict[str, list[onnx.NodeProto]] = {"F0": [helper.make_node("Neg", ["a"], ["b"])]}
    for level in range(1, power + 1):
        names = ["a", *(f"t{i}" for i in range(9)), "b"]
        bodies[f"F{level}"] = [_call(f"F{level - 1}", names[i], names[i + 1]) for i in range(10)]
    return _with_functions(bodies, f"F{power}")


def _call(name: str, argument: str = "a", result: str = "b") -> onnx.NodeProto:
    return helper.make_node(name, [argument], [result], domain=EVIL)


def _with_functions(bodies: dict[str, list[onnx.NodeProto]], called: str) -> onnx.ModelProto:
    model = accumulator()
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(EVIL, 1)]
    model.functions.extend(helper.make_function(EVIL, n, ["a"], ["b"], nodes, opsets) for n, nodes in bodies.items())
    model.opset_import.append(opsets[1])
    model.graph.node.insert(0, _call(called, "x", "called"))
    return model


def asking_for(numbers: int, *, constant: bool) -> onnx.ModelProto:
    """Adds up so many zeros, at its load where their count is `constant`, else in its runs."""
    model = accumulator()
    model.graph.initializer.append(numpy_helper.from_array(np.array([numbers], np.int64), "numbers"))
    nodes = [] if constant else _product("numbers", "batches", "count")
    nodes.append(helper.make_node("ConstantOfShape", ["numbers" if constant else "count"], ["zeros"]))
    nodes.append(helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0))
    nodes.append(helper.make_node("Add", ["gain", "zero"], ["more_gain"]))
    return _amplified_by(model, nodes)


def _product(name: str, batches: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Shape", ["x"], [batches], start=0, end=1),
        helper.make_node("Mul", [name, batches], [result]),
    ]


def _amplified_by(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Put nodes in front that give `more_gain`, and use that."""
    product = next(node for node in model.graph.node if node.op_type == "Mul")
    product.input[1] = "more_gain"
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    return model


def going_round(forever: bool = True) -> onnx.ModelProto:
    """Goes round a loop for ever, or until the first feature of the first row is 1."""
    model = accumulator()
    more: list[onnx.NodeProto] = [helper.make_node("Identity", ["c"], ["c2"])]
    if not forever:
        flat = helper.make_node("Slice", ["x", "zeros3", "ones3"], ["corner"])
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.int64), "zeros3"))
        model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.int64), "ones3"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(1.5, np.float32), "one_and_a_half"))
        model.graph.initializer.append(numpy_helper.from_array(np.array([], np.int64), "scalar"))
        more = [helper.make_node("Greater", ["corner_0", "one_and_a_half"], ["c2"])]
        model.graph.node.insert(0, helper.make_node("Reshape", ["corner", "scalar"], ["corner_0"]))
        model.graph.node.insert(0, flat)
    dims: list[Any] = ["batch", "time", 2]
    body = helper.make_graph(
        [*more, helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [tensor("i", [], TensorProto.INT64), tensor("c", [], TensorProto.BOOL), tensor("v", dims)],
        [tensor("c2", [], TensorProto.BOOL), tensor("v2", dims)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    place = next(i for i, node in enumerate(model.graph.node) if node.output[0] == "y")
    model.graph.node[place].output[0] = "before_loop"
    model.graph.node.insert(place + 1, helper.make_node("Loop", ["", "yes", "before_loop"], ["y"], body=body))
    return model


def with_last(name: str, node: Callable[[str], list[onnx.NodeProto]], **constants: Any) -> onnx.ModelProto:
    """Compute the output `name` as ever, then do something else to it. `node` is given what it was."""
    model = accumulator()
    place = next(i for i, each in enumerate(model.graph.node) if name in each.output)
    model.graph.node[place].output[0] = "honest"
    for each in model.graph.node:
        each.input[:] = ["honest" if given == name else given for given in each.input]
    for offset, each in enumerate(node("honest"), 1):
        model.graph.node.insert(place + offset, each)
    for constant, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), constant))
    return model


def leaking() -> onnx.ModelProto:
    """Every row is told the mean of all."""
    return with_last(
        "y",
        lambda y: [
            helper.make_node("ReduceMean", [y, "rows_axis"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "little"], ["a_little"]),
            helper.make_node("Add", [y, "a_little"], ["y"]),
        ],
        rows_axis=np.array([0], np.int64),
        little=np.array(1e-6, np.float32),
    )


def thin_state() -> onnx.ModelProto:
    """Gives one number of its two-number state."""
    return with_last(
        "next_s",
        lambda s: [helper.make_node("Compress", [s, "keep"], ["next_s"], axis=1)],
        keep=np.array([True, False]),
    )


def turned_state() -> onnx.ModelProto:
    """Gives its state with the batch behind: with two sessions, of the right shape."""
    return with_last("next_s", lambda s: [helper.make_node("Transpose", [s], ["next_s"], perm=[1, 0])])


def turned_outputs() -> onnx.ModelProto:
    """Gives its outputs with the time in front: as many numbers, in another order."""
    return with_last("y", lambda y: [helper.make_node("Transpose", [y], ["y"], perm=[1, 0, 2])])
