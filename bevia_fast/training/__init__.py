"""From text and options to a trained model on disk.

Begin with `step`: batch, gradient, clipping and AdamW in sixty lines. `loop` repeats it, evaluates, logs and saves;
`schedule` is the learning rate, `saving` decides when a checkpoint is written, `diagnosis` finds where a NaN began,
`compiling` warms the kernels up. A run reports through a `Reporter`; who shows it is not known here.
"""
