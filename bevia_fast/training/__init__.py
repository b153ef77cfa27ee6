"""From text and options to a trained model on disk.

Begin with `step`: gradient, clipping and AdamW on one page. `loop` repeats it, evaluates, logs and saves; `opening`
prepares a run, and `compiling` its kernels. `schedule` is the learning rate, `saving` decides when to write a
checkpoint, `diagnosis` finds where a NaN arose. A run reports to a `Reporter`; this wing does not know who shows it.
"""
