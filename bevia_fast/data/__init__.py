"""From text to batches of tokens.

Begin with `corpus`: the two splits, and batch number i as a pure function of (seed, i). `sources` reads files, folders
and standard input, `tokenizer` maps characters to integers, `tokenfile` keeps encoded text that is too large for
memory. Nothing here knows a model.
"""
