"""Records: many arrays and numbers in memory, for machine code that is handed a single pointer to them.

A parallel loop with many arrays around it takes Numba long to compile. So the loop calls a function that is compiled by
itself, with one pointer. Named tuples say what it points to:

    class Layer(NamedTuple): weight: Any; bias: Any
    class Call(NamedTuple): layer: Layer; rate: float

    values = Call(Layer(weight, bias), 0.5)
    code = c_function(types.void(type_of(values)))(function).address  # once for each dtype
    launch(code, plain(values))

    def launch(code, values):  # a kernel
        run(code, record_address(values))

    def function(call):
        call.layer.weight  # a view of the array, as `views.whole` makes it
"""

from __future__ import annotations

import hashlib
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_getattr_generic, models, register_model

from .views import I64, View, whole


class Record(types.Type):
    """The fields of a named tuple in memory, one after the other.

    Its value is a pointer, however many fields there are, and each is loaded where it is read: so it costs the compiler
    little to hand a record from function to function.
    """

    def __init__(self, name: str, fields: dict[str, types.Type]) -> None:
        self.fields = fields
        super().__init__(name=f"{name}({fields})")

    @property
    def mangling_args(self) -> Any:
        """Stands for the type in the names of compiled functions. These are kept on disk, so it must be the same in
        every process, and another one for other fields."""
        return "Record", (hashlib.sha256(self.name.encode()).hexdigest()[:16],)


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
    offset = sum(_words(kind.fields[before]) for before in names[: names.index(name)])
    field = builder.gep(pointer, [ir.Constant(I64, offset)])
    if isinstance(kind.fields[name], Record):
        return field
    return builder.load(builder.bitcast(field, context.get_value_type(kind.fields[name]).as_pointer()))


def _words(kind: types.Type) -> int:
    """The size of a field in words of 8 bytes: a pointer, an integer and a float take one each."""
    if isinstance(kind, Record):
        return sum(map(_words, kind.fields.values()))
    return 1 + len(kind.members) if isinstance(kind, View) else 1


# ----------------------------------------------------------------------------------------------------------- in Python


def plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Nested named tuples as plain ones, which Numba dispatches much faster."""
    return tuple([plain(value) if isinstance(value, tuple) else value for value in values])


def type_of(value: Any) -> types.Type:
    """The type of a value in a record: a view for an array, a record for a named tuple."""
    if isinstance(value, tuple):
        return Record(type(value).__name__, {name: type_of(part) for name, part in value._asdict().items()})
    kind: types.Type = numba.typeof(value)
    if isinstance(kind, types.Array):
        kind = _as_view(kind)[0].return_type
    return kind


def _as_view(kind: types.Array) -> Any:
    """How `whole` makes a view of such an array: the signature, and the function that writes the code."""
    return whole._defn(None, kind)


# ---------------------------------------------------------------------------------------------------------- in kernels


@intrinsic
def record(typingctx, values):
    """Write a named tuple of views and numbers to memory. The record lives until the calling function returns."""
    kind = Record(values.instance_class.__name__, dict(zip(values.fields, values.types, strict=True)))

    def codegen(context, builder, signature, arguments):
        return _write(context, builder, values, arguments[0])

    return kind(values), codegen


@intrinsic
def record_address(typingctx, values):
    """Write `plain` tuples to memory, with views in the place of arrays; returns the address as an integer, which a
    parallel loop can use. The record lives until the calling function returns."""

    def codegen(context, builder, signature, arguments):
        return builder.ptrtoint(_write(context, builder, values, arguments[0]), I64)

    return types.int64(values), codegen


def _write(context: Any, builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> ir.Value:
    parts: list[ir.Value] = []

    def collect(kind: types.Type, value: ir.Value) -> None:
        if isinstance(kind, types.BaseTuple):
            for part in zip(kind, cgutils.unpack_tuple(builder, value), strict=True):
                collect(*part)
        elif isinstance(kind, types.Array):
            signature, code = _as_view(kind)
            parts.append(code(context, builder, signature, [value]))
        else:
            parts.append(value)

    collect(kind, value)
    memory = cgutils.alloca_once(builder, ir.LiteralStructType([part.type for part in parts]))
    for i, part in enumerate(parts):
        builder.store(part, cgutils.gep_inbounds(builder, memory, 0, i))
    return builder.bitcast(memory, I64.as_pointer())


@intrinsic
def run(typingctx, code, address):
    """Call the machine code at one address with another as its argument."""

    def codegen(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
