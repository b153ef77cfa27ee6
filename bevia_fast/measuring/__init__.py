"""How fast it is: `bench` and `profile`.

Begin with `stopwatch`, which states the rules of timing. `competitor` and `worker` are the two ends of a process that
is timed, `turns` lets several of them alternate; `step_times`, `kernel_times` and `context_growth` are the benchmarks,
`step_profile` takes a step apart. This wing prints nothing and knows no terminal.
"""
