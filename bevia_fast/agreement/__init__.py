"""Whether two backends compute the same.

Begin with `comparison`: one kernel, one case, both backends, the error beside its tolerance. `cases` lists sizes chosen
to hurt, `tolerances` says what rounding explains, `sweep` goes through all of them; `crosscheck` compares whole models
while they train. Nothing here is timed or trained.
"""
