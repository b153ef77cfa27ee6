"""From text to batches of tokens.

Begin with `corpus`: the two splits, and batch number i as a pure function of (seed, i). `sources` reads the files that
`selection` chooses, in the characters that `decoding` finds in their bytes. A `vocabulary` maps text to integers:
`tokenizer` characters, `bytelevel` bytes, `bpe` byte pairs; `vocabularies` has the one that is asked for. `encoding`
turns a text into arrays, `tokenfile` caches those that are larger than memory, and `texts` does it all for the options
of a run. This wing knows no model.
"""
