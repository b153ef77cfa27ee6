"""What is only about the CPU: vector registers, views, register tiles, packing, vectorized exponentials.

Begin with `views`: the matrices and rows in which all kernels are written; `records` hands many of them to a function
at once. `vector` and `exponential` write LLVM vector code as formulas, for the instructions that `_runtime.target` has
found; `passes` runs it along a row. On these are built functions of rows (`elementwise`, `reductions`, `softmax`,
`norm_rows`, `adamw_update`, `attention_rows`), products (`tiles` in registers, `packing` of right operands, `blocks`
and `shares` of any size, `rows` for generation) and the plans that split them (`product_plan`, `attention_plan`).
`probe` measures what the machine can do. Nothing here may know an operation of the contract, a model or Python's
threads.
"""
