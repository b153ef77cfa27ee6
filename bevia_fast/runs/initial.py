"""Fine-tuning: a new run that starts with the weights and the vocabulary of an earlier one."""

from __future__ import annotations

from dataclasses import fields, replace

from ..config import CHARACTERS, ModelConfig, TrainConfig
from ..data.vocabulary import Vocabulary
from ..errors import ConfigError
from ..model.parameters import Parameters
from ..naming import option
from .modelfile import load_trained

MAY_DIFFER = ("dropout", "dtype", "precision", "vocab_size")  # the weights are the same whatever these are


def initial_model(config: TrainConfig) -> tuple[TrainConfig, Parameters, Vocabulary, int]:
    """Return the options with the sizes of the run that `config.init` names, its weights in the dtype of the options,
    its vocabulary, and the steps that it was trained for.

    Raises CheckpointError if that is no run, and ConfigError if `config` has other sizes, unless it has the default
    ones.
    """
    weights, tokenizer, step = load_trained(config.init)
    theirs = weights.config
    model = theirs if config.model == ModelConfig() else config.model
    for each in fields(ModelConfig):
        mine, wanted = getattr(model, each.name), getattr(theirs, each.name)
        if mine != wanted and each.name not in MAY_DIFFER:
            raise ConfigError(
                f"{option(each.name, mine)} differs from {config.init}, which has {option(each.name, wanted)}; a run "
                f"with {option('init')} has the sizes of the model that it starts from."
            )
    if config.tokens not in (CHARACTERS, tokenizer.name):
        raise ConfigError(
            f"{option('tokens', config.tokens)} differs from {config.init}, whose tokens are {tokenizer.name}; a run "
            f"with {option('init')} has the tokens of the model that it starts from."
        )
    model = replace(model, vocab_size=len(tokenizer))
    if model.dtype != theirs.dtype:
        cast = Parameters(model)
        for name, view in weights.items():
            cast[name][...] = view
        weights = cast
    weights.config = model  # with the dropout of this run
    return replace(config, model=model, tokens=tokenizer.name), weights, tokenizer, step
