"""What the kernels need of Numba itself, and nothing about arithmetic.

Begin with `jit`: `kernel` and `device` are the decorators of everything that is compiled. `cache` keeps machine code on
disk, `linking` and `interrupts` make its compilation shorter and safe to interrupt; `target` is the instruction set
that it is compiled for; `launches` records what a tape plays; `threads` chooses the threading layer, and `team` lets
its threads meet; `scratch` is working memory, and `rehearsal` asks how much of it a call takes. Nothing here imports
`_simd`, or knows an operation or a model.
"""
