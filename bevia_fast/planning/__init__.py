"""What a run will take, before it starts: memory and time.

Begin with `plan`, which puts the parts together. `rehearsal` runs a step without its arithmetic and lists the kernel
calls; `memory` counts the bytes of a step; `forecast` times a small step and scales it. This wing trains nothing and
writes no files.
"""
