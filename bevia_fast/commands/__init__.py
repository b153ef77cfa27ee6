"""The command line: one module per command, and the modules that they share.

Begin with `main`, which runs a command and turns errors into exit codes; `arguments` parses the command line into a
configuration. `console` shows a training run, `progress` a measurement, `tables` its results, each a `sheet` that
fits the terminal. A command calls the wings below and prints what they return; it implements no training or measuring
itself. No other wing imports this one.
"""
