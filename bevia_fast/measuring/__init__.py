"""Measuring speed and memory, for `bench` and `profile`.

Begin with `stopwatch`, which states the rules of timing. `competitor` and `worker` are the two ends of a timed process,
and `turns` lets several of them alternate. `step_times`, `kernel_times` and `context_growth` are the benchmarks, and
`step_profile` breaks a step down into its kernel calls. `run_sizes` reads the sizes of a run, and
`own_kernel` loads a kernel of the user's. This wing prints nothing and knows no terminal.
"""
