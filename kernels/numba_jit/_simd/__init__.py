"""What only the machine cares about: lanes, register tiles, packing, vector exp.

`target` says what the CPU at hand offers and which tiles suit it; `vector` writes LLVM vector code; `tiles` makes the
register-tiled matrix product and `spans` the element-wise passes over a row from it. The kernels next door say what is
computed, and call these.
"""
