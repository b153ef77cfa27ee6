"""The lab: experiments that show what a part of the model is good for, by training with and without it.

Begin with `experiments`, the list of them. `changes` takes parts out of a model without a copy of it, `cells` trains
one model and measures it, `answers` compares the arms of an experiment, and `reports` writes what came out.
"""
