"""What a person types and sees: one file for each command, and what they share.

Begin with `main`, which runs a command and turns errors into exit codes; `arguments` makes a configuration of what was
typed. `console` shows a training run, `progress` a measurement, `tables` results. A command calls the wings below and
prints what they return; nothing is computed here, and no other wing imports this one.
"""
