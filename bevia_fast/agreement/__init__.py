"""Whether two backends compute the same results.

Begin with `comparison`: one kernel call on both backends, with the error beside its tolerance. `cases` lists calls with
difficult sizes, `tolerances` says how much error rounding explains, `sweep` compares all kernels on all cases, and
`crosscheck` compares whole models while they train. This wing times nothing and trains nothing.
"""
