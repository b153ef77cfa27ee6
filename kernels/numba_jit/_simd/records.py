"""Records: many arrays and numbers in memory, for machine code that is handed a single pointer to them.

A parallel loop with many arrays around it takes Numba long to compile. So the loop calls a function that is compiled by
itself, and hands it one pointer. Named tuples say what it finds there:

    class Layer(NamedTuple): weight: Any; bias: Any
    class Call(NamedTuple): layer: Any; rate: Any

    values = Call(Layer(weight, bias), 0.5)
    code = c_function(types.void(type_of(values)))(function).address  # once for each dtype
    launch(code, flat(values))

    def launch(code, values):  # a kernel
        run(code, record(values))

    def function(call):
        call.layer.weight  # a view of the array, as `views.whole` makes it
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_getattr_generic, models, register_model

from .views import I64, View, whole


class Record(types.Type):
    """The fields of a named tuple in memory, one after the other. It is passed as a pointer, and a field is loaded
    where it is read."""

    def __init__(self, name: str, fields: tuple[tuple[str, types.Type], ...]) -> None:
        self.fields = dict(fields)
        super().__init__(name=f"{name}{fields}")

    @property
    def mangling_args(self) -> Any:
        """In the names of functions: the whole name is long."""
        return "Record", (self._code,)


@register_model(Record)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Record) -> None:
        super().__init__(manager, kind, I64.as_pointer())


@infer_getattr
class _Fields(AttributeTemplate):
    key = Record

    def generic_resolve(self, kind: Record, name: str) -> types.Type | None:
        return kind.fields.get(name)


@lower_getattr_generic(Record)
def _load_field(context, builder, kind, pointer, name):
    names = list(kind.fields)
    offset = sum(_words(kind.fields[other]) for other in names[: names.index(name)])
    field = builder.gep(pointer, [ir.Constant(I64, offset)])
    if isinstance(kind.fields[name], Record):
        return field
    return builder.load(builder.bitcast(field, context.get_value_type(kind.fields[name]).as_pointer()))


def _words(kind: types.Type) -> int:
    """The size of a field: all that it consists of, pointers, integers and floats, takes 8 bytes."""
    if isinstance(kind, Record):
        return sum(map(_words, kind.fields.values()))
    return 1 + len(kind.members) if isinstance(kind, View) else 1


# ---------------------------------------------------------------------------------------------------- making and using


def flat(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arrays and numbers in nested named tuples, as a plain tuple: Numba takes 30 times as long for named ones."""
    leaves: list[Any] = []
    for value in values:
        if isinstance(value, tuple):
            leaves += flat(value)
        else:
            leaves.append(value)
    return tuple(leaves)


def type_of(value: Any) -> types.Type:
    """The type of a value in a record."""
    if isinstance(value, tuple):
        return Record(type(value).__name__, tuple((name, type_of(part)) for name, part in value._asdict().items()))
    kind = numba.typeof(value)
    return _as_view(kind)[0].return_type if isinstance(kind, types.Array) else kind


def _as_view(kind: types.Array) -> Any:
    """How `whole` makes a view of an array: its signature, and what writes its code."""
    return whole._defn(None, kind)


@intrinsic
def record(typingctx, values):
    """Write a flat tuple to memory, its arrays as views; returns the address, which is valid until the caller ends."""

    def codegen(context, builder, signature, arguments):
        parts = []
        for kind, value in zip(values, cgutils.unpack_tuple(builder, arguments[0]), strict=True):
            if isinstance(kind, types.Array):
                made, code = _as_view(kind)
                parts.append(code(context, builder, made, [value]))
            else:
                parts.append(value)
        space = cgutils.alloca_once(builder, ir.LiteralStructType([part.type for part in parts]))
        builder.store(cgutils.pack_struct(builder, parts), space)
        return builder.ptrtoint(space, I64)

    return types.int64(values), codegen


@intrinsic
def run(typingctx, code, pointer):
    """Call the machine code at an address with an address as its argument."""

    def codegen(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
