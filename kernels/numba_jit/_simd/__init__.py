"""What only the machine cares about: lanes, register tiles, packing, vector exp.

`target` says what the CPU at hand offers and which tiles suit it; `vector` writes LLVM vector code. From that come the
products: `tiles` in registers, `packing` of their right operands, `blocks` of large ones, `rows` one or two times a
matrix. `product_plan` and `attention_plan` say how the work is cut. `spans` passes over rows element by element,
`norm_spans` with sums, `softmax_spans` and `attention_rows` with exponentials; `adamw_spans` passes over parameters.
`probe` measures what the machine can do at most. The kernels next door say what is computed, and call these.
"""
