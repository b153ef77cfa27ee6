"""What is only about the CPU: vector registers, views, register tiles, packing, vectorised exponentials.

Begin with `views`: matrices and rows, in which everything above is written. `vector` writes LLVM vector code as
formulas, for the instructions that `_runtime.target` found, and `passes` runs them along a row. From these come
functions of rows (`elementwise`, `reductions`, `softmax`, `norm_rows`, `norm_gradient`, `adamw_update`,
`attention_rows`), products (`tiles` in registers, `packing` of right operands, `blocks` of any size, `rows` for
generation) and plans that split them (`product_plan`, `attention_plan`). `probe` measures what the machine can do.
Nothing here knows an operation of the contract, a model or a Python thread.
"""
