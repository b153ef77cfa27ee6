"""The transformer.

Begin with `gpt`: forward and backward as a sequence of kernel calls; the blocks are in `pre_norm` and `post_norm`.
`parameters` is the flat buffer of weights, `activations` the arrays that a pass keeps, `decoder` generation with a
key/value cache, `writing` the drawing of text. A model computes with the backend it is given, and knows neither files
nor training.
"""
