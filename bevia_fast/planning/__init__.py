"""What a run will take, before it starts: memory and time.

Begin with `plan`, which puts the parts together. `rehearsal` makes a step without arithmetic and lists its kernel
calls; `memory` counts the bytes of one, `forecast` times a small step and scales it. Nothing is trained or written
here.
"""
