"""From text to batches of tokens.

Begin with `corpus`: the two splits, and batch number i as a pure function of (seed, i). `sources` reads the files that
`selection` chooses, in the characters that `decoding` finds in their bytes. `tokenizer` maps characters to integers,
`encoding` turns a text into arrays, and `tokenfile` caches texts that are larger than memory. This wing knows no model.
"""
