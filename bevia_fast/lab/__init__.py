"""The lab: experiments that show what a part of the model is good for, by training with and without it.

Begin with `experiments`, the list of them. `cells` trains one model and measures it, `answers` compares the arms of an
experiment, and `reports` writes what came out. What an arm takes out of a model is an option of its configuration;
`model.changes` and `model.optimizer` obey it.
"""
