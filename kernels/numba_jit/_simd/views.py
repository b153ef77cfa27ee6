"""Views of parts of arrays: matrices, rows and packed panels, the types in which kernels are written.

    m[i : j]  m[i : j, k : l]  m[:, k : l]  m.T  m.rows  m.columns      of a matrix
    m[i]  row[i : j]  row[i]  row[i] = x  row.size                      a row of it, whose elements are adjacent
    p[i : j]  p[:, k : l]  p.rows  p.columns                            of packed panels, k a multiple of their width

As in NumPy, an end beyond the last element is clamped to it. But no index counts from the end, a start must not lie
beyond the end, and nothing is checked.

A view is an address and a few integers, which stay in registers. Numba's own slices work too, but they count references
and take 50 % longer to compile; tuples of an array and integers take 25 % longer.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_getattr, make_attribute_wrapper, models, register_model

I64 = ir.IntType(64)


class View(types.Type):
    """A part of an array of `dtype`."""

    members: tuple[str, ...] = ()  # int64, after the address

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"{type(self).__name__}({dtype})")


class Row(View):
    """Adjacent elements."""

    members: tuple[str, ...] = ("size",)


class Matrix(View):
    """Element (i, j) is at offset i `row` + j `column`."""

    members: tuple[str, ...] = ("rows", "columns", "row", "column")


class Causal(Matrix):
    """A matrix whose row i is defined up to column i + `diagonal`: its rows are queries, its columns keys.

    A slice keeps track of the diagonal; the transpose is an ordinary matrix.
    """

    members = (*Matrix.members, "diagonal")


class Panels(View):
    """A packed right operand: element (k, j) is at offset (j - j % width) * `depth` + k * width + j % width.

    `depth` is the number of rows that were packed, of which a slice may show fewer. `multiply` is the address of the
    machine code that multiplies with it; see `tiles.product_address`.
    """

    members = ("rows", "columns", "width", "depth", "multiply")


VISIBLE = {"size", "rows", "columns", "width", "column", "row", "diagonal", "multiply"}

for _kind in (Row, Matrix, Causal, Panels):

    @register_model(_kind)
    class _Model(models.StructModel):
        def __init__(self, manager: Any, kind: View) -> None:
            members = [("data", types.CPointer(kind.dtype)), *((name, types.int64) for name in kind.members)]
            super().__init__(manager, kind, members)

    for _name in VISIBLE & set(_kind.members):
        make_attribute_wrapper(_kind, _name, _name)


def struct(context: Any, builder: ir.IRBuilder, kind: types.Type, value: ir.Value | None = None) -> Any:
    """A view's address and integers, to be read and set by name."""
    return cgutils.create_struct_proxy(kind)(context, builder, value=value)


def view_of(context: Any, builder: ir.IRBuilder, kind: View, data: ir.Value, *numbers: ir.Value) -> ir.Value:
    """A new view with the given members, in their order."""
    view = struct(context, builder, kind)
    view.data = data
    for name, number in zip(kind.members, numbers, strict=True):
        setattr(view, name, number)
    return view._getvalue()


def place(context: Any, builder: ir.IRBuilder, kind: types.Type, array: ir.Value, offset: ir.Value) -> ir.Value:
    """The address of the element at `offset` from the first of an array, a view or a pointer."""
    data = array if isinstance(kind, types.CPointer) else struct(context, builder, kind, array).data
    return builder.gep(data, [offset])


# -------------------------------------------------------------------------------------------------------------- making


@intrinsic
def matrix(typingctx, array, at, rows, columns, row):
    """The matrix that begins at element `at` of an array, with rows `row` elements apart."""
    kind, n = Matrix(array.dtype), types.int64

    def codegen(context, builder, signature, arguments):
        array_, at_, rows_, columns_, row_ = arguments
        data = place(context, builder, array, array_, at_)
        return view_of(context, builder, kind, data, rows_, columns_, row_, ir.Constant(I64, 1))

    return kind(array, n, n, n, n), codegen


@intrinsic
def whole(typingctx, array):
    """A C-contiguous array as a view: a row if it has one dimension, else a matrix whose columns are the last one."""
    kind = Row(array.dtype) if array.ndim == 1 else Matrix(array.dtype)

    def codegen(context, builder, signature, arguments):
        parts = struct(context, builder, array, arguments[0])
        *outer, last = cgutils.unpack_tuple(builder, parts.shape)
        if not outer:
            return view_of(context, builder, kind, parts.data, last)
        rows = functools.reduce(builder.mul, outer)
        return view_of(context, builder, kind, parts.data, rows, last, last, ir.Constant(I64, 1))

    return kind(array), codegen


@intrinsic
def causal(typingctx, whole, diagonal):
    """A matrix whose row i is defined up to column i + diagonal."""
    kind = Causal(whole.dtype)

    def codegen(context, builder, signature, arguments):
        m = struct(context, builder, whole, arguments[0])
        return view_of(context, builder, kind, m.data, m.rows, m.columns, m.row, m.column, arguments[1])

    return kind(whole, types.int64), codegen


@intrinsic
def row_of(typingctx, array, at, size):
    """The `size` elements of an array that begin at element `at`."""
    kind, n = Row(array.dtype), types.int64

    def codegen(context, builder, signature, arguments):
        return view_of(context, builder, kind, place(context, builder, array, *arguments[:2]), arguments[2])

    return kind(array, n, n), codegen


@intrinsic
def panels(typingctx, array, at, rows, columns, width, multiply):
    """Room for a packed matrix (rows, columns), from element `at` of an array on."""
    kind, n = Panels(array.dtype), types.int64

    def codegen(context, builder, signature, arguments):
        array_, at_, rows_, columns_, width_, multiply_ = arguments
        data = place(context, builder, array, array_, at_)
        return view_of(context, builder, kind, data, rows_, columns_, width_, rows_, multiply_)

    return kind(array, n, n, n, n, n), codegen


@intrinsic
def panel(typingctx, packed, j):
    """The panel that begins at column j, as a matrix."""
    kind = Matrix(packed.dtype)

    def codegen(context, builder, signature, arguments):
        p, j_ = struct(context, builder, packed, arguments[0]), arguments[1]
        data = builder.gep(p.data, [builder.mul(j_, p.depth)])
        columns = _least(builder, p.width, builder.sub(p.columns, j_))
        return view_of(context, builder, kind, data, p.rows, columns, p.width, ir.Constant(I64, 1))

    return kind(packed, types.int64), codegen


@intrinsic
def repeated(typingctx, row, rows):
    """A row as a matrix with the given number of rows, which are all that row."""
    kind = Matrix(row.dtype)

    def codegen(context, builder, signature, arguments):
        r, one, zero = struct(context, builder, row, arguments[0]), ir.Constant(I64, 1), ir.Constant(I64, 0)
        return view_of(context, builder, kind, r.data, arguments[1], r.size, zero, one)

    return kind(row, types.int64), codegen


@intrinsic
def nothing_like(typingctx, view):
    """A matrix at address 0, in place of an addend that is not given."""
    kind = Matrix(view.dtype)

    def codegen(context, builder, signature, arguments):
        nowhere = ir.Constant(context.get_value_type(types.CPointer(kind.dtype)), None)
        return view_of(context, builder, kind, nowhere, *[ir.Constant(I64, 0)] * 4)

    return kind(view), codegen


# ---------------------------------------------------------------------------------------------- indices and transposes


def _least(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


@infer_global(operator.getitem)
class _Indexing(AbstractTemplate):
    """view[i : j] and view[i : j, k : l] are views of the same kind; matrix[i] is a row, row[i] a number."""

    def generic(self, args: Any, kws: Any) -> Any:
        view, index = args
        if not isinstance(view, View):
            return None
        if isinstance(index, types.SliceType):
            return signature(view, view, index)
        if isinstance(index, types.BaseTuple) and not isinstance(view, Row):
            return signature(view, view, index)
        if isinstance(index, types.Integer) and not isinstance(view, Panels):
            return signature(view.dtype if isinstance(view, Row) else Row(view.dtype), view, types.int64)
        return None


@infer_global(operator.setitem)
class _Setting(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        row, index, _ = args
        if isinstance(row, Row) and isinstance(index, types.Integer):
            return signature(types.none, row, types.int64, row.dtype)
        return None


@lower_builtin(operator.getitem, View, types.SliceType)
def _slice(context, builder, signature, arguments):
    view = struct(context, builder, signature.args[0], arguments[0])
    kind, index = signature.args
    _cut(context, builder, view, 0, kind, index, arguments[1])
    return view._getvalue()


@lower_builtin(operator.getitem, View, types.BaseTuple)
def _slices(context, builder, signature, arguments):
    kind, indices = signature.args
    view = struct(context, builder, kind, arguments[0])
    for axis, (index, part) in enumerate(zip(indices, cgutils.unpack_tuple(builder, arguments[1]), strict=True)):
        _cut(context, builder, view, axis, kind, index, part)
    return view._getvalue()


def _cut(
    context: Any, builder: ir.IRBuilder, view: Any, axis: int, kind: View, index: types.Type, part: ir.Value
) -> None:
    """Cut a view to a slice along one axis."""
    part = context.make_helper(builder, index, value=part)
    start = offset = part.start
    if isinstance(kind, Matrix):
        offset = builder.mul(start, (view.row, view.column)[axis])
    elif isinstance(kind, Panels) and axis == 0:
        offset = builder.mul(start, view.width)
    elif isinstance(kind, Panels):
        offset = builder.mul(start, view.depth)
    view.data = builder.gep(view.data, [offset])
    length = "size" if isinstance(kind, Row) else ("rows", "columns")[axis]
    setattr(view, length, builder.sub(_least(builder, part.stop, getattr(view, length)), start))
    if isinstance(kind, Causal):
        view.diagonal = (builder.add, builder.sub)[axis](view.diagonal, start)


@lower_builtin(operator.getitem, Matrix, types.Integer)
def _row(context, builder, signature, arguments):
    view = struct(context, builder, signature.args[0], arguments[0])
    data = builder.gep(view.data, [builder.mul(arguments[1], view.row)])
    return view_of(context, builder, signature.return_type, data, view.columns)


@lower_builtin(operator.getitem, Row, types.Integer)
def _element(context, builder, signature, arguments):
    return builder.load(builder.gep(struct(context, builder, signature.args[0], arguments[0]).data, [arguments[1]]))


@lower_builtin(operator.setitem, Row, types.Integer, types.Float)
def _set_element(context, builder, signature, arguments):
    row, index, value = arguments
    builder.store(value, builder.gep(struct(context, builder, signature.args[0], row).data, [index]))


@infer_getattr
class _DType(AttributeTemplate):
    key = View

    def resolve_dtype(self, kind: View) -> types.DType:
        return types.DType(kind.dtype)


@lower_getattr(View, "dtype")
def _dtype(context, builder, kind, value):
    return context.get_dummy_value()


@infer_getattr
class _Transposed(AttributeTemplate):
    key = Matrix

    def resolve_T(self, kind: Matrix) -> Matrix:
        return Matrix(kind.dtype)


@lower_getattr(Matrix, "T")
def _transpose(context, builder, kind, value):
    m = struct(context, builder, kind, value)
    return view_of(context, builder, Matrix(kind.dtype), m.data, m.columns, m.rows, m.column, m.row)


lower_builtin(operator.setitem, Row, types.Integer, types.Integer)(_set_element)  # of a row of integers


@intrinsic
def block(typingctx, m, n, rows):
    """m[n * rows : (n + 1) * rows], the n-th of the blocks that a matrix is made of."""

    def codegen(context, builder, signature, arguments):
        view, (_, n_, rows_) = struct(context, builder, m, arguments[0]), arguments
        data = builder.gep(view.data, [builder.mul(builder.mul(n_, rows_), view.row)])
        return view_of(context, builder, m, data, rows_, view.columns, view.row, view.column)

    return m(m, types.int64, types.int64), codegen
