from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from helpers import EPS, GRADIENT_TOLERANCE, assert_close, random_parameters

from bevia_fast.config import GenerateConfig, ModelConfig
from bevia_fast.errors import ConfigError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend, ContractError
from bevia_fast.model.decoder import Decoder
from bevia_fast.model.dropout import DropoutStream
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters

VARIANTS = [
    *itertools.product(("pre", "post"), ("relu", "gelu"), (True, False), (0.0, 0.2)),
    ("pre", "gelu_erf", True, 0.0), ("post", "gelu_erf", False, 0.2),
]
each_variant = pytest.mark.parametrize(("norm", "activation", "tie", "dropout"), VARIANTS)
B, T = 2, 5


def config(**options: Any) -> ModelConfig:
    usual: dict[str, Any] = {"ctx": 6, "dim": 6, "layers": 2, "heads": 3, "vocab_size": 7, "dtype": "float64"}
    return ModelConfig(**(usual | options))




def batch(config: ModelConfig, rows: int = B, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    tokens, targets = random.integers(0, config.vocab_size, (2, rows, T)).astype(np.int32)
    return tokens, targets


@each_variant
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_by_finite_differences(norm: str, activation: str, tie: bool, dropout: float, bias: bool) -> None:
    assert_gradients_are_right(config(norm=norm, activation=activation, tie=tie, dropout=dropout, bias=bias))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradients_with_rotary_positions(norm: str, dropout: float) -> None:
    assert_gradients_are_right(config(norm=norm, dropout=dropout, heads=2, dim=8, positions="rotary"))


WINDOWS: list[dict[str, Any]] = [
    {"window": 2}, {"window": 1, "window_layers": "all", "norm": "post"}, {"window": 3, "window_layers": "odd"},
    {"window": 3, "window_layers": "all", "heads": 2, "dim": 8, "positions": "rotary"},
]  # fmt: skip


@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradients_with_a_window(options: dict[str, Any], dropout: float) -> None:
    assert_gradients_are_right(config(**options, dropout=dropout))


@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_numba_agrees_with_numpy_with_a_window(options: dict[str, Any], dtype: str) -> None:
    assert_backends_agree_on(config(**options, dropout=0.2, dtype=dtype))


def test_which_layers_have_the_window() -> None:
    assert config(layers=5, ctx=8, window=3).windows == (3, 0, 3, 0, 3)
    assert config(layers=5, ctx=8, window=3, window_layers="odd").windows == (0, 3, 0, 3, 0)
    assert config(layers=3, ctx=8, window=7, window_layers="all").windows == (7, 7, 7)
    for longer in (0, 8, 9):  # as long as the context: it hides nothing
        assert config(layers=3, ctx=8, window=longer, window_layers="all").windows == (0, 0, 0)
    with pytest.raises(ConfigError, match="window is -1; it must be from 0 to "):
        config(window=-1)
    with pytest.raises(ConfigError, match="window_layers is 'even'; it must be one of alternate, odd, all"):
        config(window_layers="even")


@pytest.mark.parametrize(("layers", "reach"), [(1, 2), (2, 3), (3, 4)])
def test_each_layer_reaches_one_window_further(backend: Backend, layers: int, reach: int) -> None:
    """With windows of two positions, each layer adds one position before."""
    cfg = config(layers=layers, window=2, window_layers="all")
    tokens = np.array([[1, 2, 3, 4, 5, 6]])
    model = GPT(cfg, backend, random_parameters(cfg))
    before = model.logits(tokens)[0, -1]
    for t in range(6):
        changed = tokens.copy()
        changed[0, t] = 0
        assert (np.abs(model.logits(changed)[0, -1] - before).max() > 1e-9) == (t > 5 - reach), t


def assert_gradients_are_right(cfg: ModelConfig) -> None:
    """Along random directions, one for each tensor and one for all together.

    With four points, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h: a small model's curvature is too large for two.
    """
    parameters, gradients = random_parameters(cfg), Parameters(cfg)
    tokens, targets = batch(cfg)
    model, stream = GPT(cfg, get_backend("numpy"), parameters), DropoutStream(seed=3, step=4)
    model.loss_and_gradients(tokens, targets, gradients, dropout=stream)
    exact = {name: view.copy() for name, view in gradients.items()}

    def loss() -> float:
        return model.loss_and_gradients(tokens, targets, gradients, dropout=stream)

    random, step = np.random.default_rng(5), 1e-5
    directions = [{name: random.normal(size=view.shape)} for name, view in parameters.items()]
    directions.append({name: random.normal(size=view.shape) for name, view in parameters.items()})
    start = parameters.flat.copy()
    for direction in directions:
        numerical = 0.0
        for steps, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            for name, along in direction.items():
                parameters[name][...] += steps * step * along
            numerical += factor * loss() / (12 * step)
            parameters.flat[...] = start
        analytic = sum(float((exact[name] * along).sum()) for name, along in direction.items())
        size = max(float(np.linalg.norm(exact[name])) for name in direction)
        name = f"gradient by {' and '.join(direction)}"
        assert_close(name, analytic, numerical, GRADIENT_TOLERANCE, size)


@each_variant
def test_numba_agrees_with_numpy(norm: str, activation: str, tie: bool, dropout: float, dtype: str) -> None:
    assert_backends_agree_on(config(norm=norm, activation=activation, tie=tie, dropout=dropout, dtype=dtype))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_numba_agrees_with_numpy_with_rotary_positions(norm: str, dtype: str) -> None:
    assert_backends_agree_on(config(norm=norm, dropout=0.2, heads=2, dim=8, positions="rotary", dtype=dtype))


def assert_backends_agree_on(cfg: ModelConfig) -> None:
    dtype, (tokens, targets) = cfg.dtype, batch(cfg)
    results = []
    for name in ("numba", "numpy"):
        gradients = Parameters(cfg)
        model = GPT(cfg, get_backend(name), random_parameters(cfg))
        loss = model.loss_and_gradients(tokens, targets, gradients, dropout=DropoutStream(1, 2))
        results.append((loss, gradients))
    (loss, gradients), (expected_loss, expected) = results
    assert_close("loss", loss, expected_loss, 100 * EPS[dtype])
    largest = float(np.abs(expected.flat).max())
    for name in gradients:
        assert_close(f"gradient of {name}", gradients[name], expected[name], 200 * EPS[dtype], largest)


def test_micro_batches_add_up_to_the_batch(backend: Backend) -> None:
    cfg = config()
    tokens, targets = batch(cfg, rows=4)
    model, whole, parts = GPT(cfg, backend, random_parameters(cfg)), Parameters(cfg), Parameters(cfg)
    loss = model.loss_and_gradients(tokens, targets, whole)
    losses = [model.loss_and_gradients(tokens[i : i + 2], targets[i : i + 2], parts, scale=0.5) for i in (0, 2)]
    assert_close("loss", np.mean(losses), loss, 1e-14)
    assert_close("gradients", parts.flat, whole.flat, 1e-13)


def test_loss_without_gradients_is_the_same(backend: Backend) -> None:
    cfg = config(dropout=0.3)
    tokens, targets = batch(cfg)
    model = GPT(cfg, backend, random_parameters(cfg))
    assert model.loss(tokens, targets) == model.loss_and_gradients(tokens, targets, Parameters(cfg))


def test_logits_give_the_loss(backend: Backend) -> None:
    cfg = config(norm="post")
    tokens, targets = batch(cfg)
    model = GPT(cfg, backend, random_parameters(cfg))
    logits = model.logits(tokens)
    assert logits.shape == (B, T, cfg.vocab_size)
    lse = np.log(np.exp(logits).sum(axis=-1))
    losses = lse - np.take_along_axis(logits, targets[:, :, None].astype(np.int64), axis=-1)[..., 0]
    assert_close("loss", model.loss(tokens, targets), losses.mean(), 1e-13)


def test_logits_do_not_see_later_tokens(backend: Backend) -> None:
    cfg = config()
    tokens, _ = batch(cfg)
    model = GPT(cfg, backend, random_parameters(cfg))
    before = model.logits(tokens)
    tokens[:, 3:] = (tokens[:, 3:] + 1) % cfg.vocab_size
    after = model.logits(tokens)
    assert_close("logits", after[:, :3], before[:, :3], 1e-13)
    assert np.abs(after[:, 3:] - before[:, 3:]).max() > 1e-3


def test_rotary_positions_are_seen_without_weights_for_them(backend: Backend) -> None:
    cfg = config(heads=2, dim=8, positions="rotary")
    weights = random_parameters(cfg)
    assert "wpe.weight" not in weights
    assert weights.count == Parameters(config(heads=2, dim=8)).count - cfg.ctx * cfg.dim
    logits = GPT(cfg, backend, weights).logits(np.array([[1, 2, 3, 4], [2, 1, 3, 4]]))[:, -1]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3  # the same tokens in another order


def test_rotary_positions_need_pairs_of_channels() -> None:
    with pytest.raises(ConfigError, match="rotates pairs of channels; a head has dim / heads = 3 of them"):
        config(dim=6, heads=2, positions="rotary")
    with pytest.raises(ConfigError, match="positions is 'alibi'; it must be one of learned, rotary"):
        config(positions="alibi")


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_erf"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("window", [0, 2])
def test_decoding_with_the_cache_gives_the_same_logits(
    backend: Backend, norm: str, activation: str, positions: str, window: int
) -> None:
    cfg = config(
        norm=norm, activation=activation, tie=False, positions=positions, heads=2, dim=8, window=window
    )
    tokens, _ = batch(cfg, rows=1)
    model = GPT(cfg, backend, random_parameters(cfg))
    whole, decoder, ignored = model.logits(tokens)[0], Decoder(model), np.zeros(1, np.int32)
    for read in (1, 3, 2):  # several at once, then one by one; what was before is forgotten
        assert_close(f"logits after reading {read}", decoder.read(tokens[0, :read]), whole[read - 1], 1e-12)
        for t in range(read, tokens.shape[1]):
            assert decoder.write(ignored, int(tokens[0, t]), GenerateConfig(run=""), 0) == 1
            assert_close(f"logits at {t}", decoder.logits, whole[t], 1e-12)


NAMES = list(Parameters(config(tie=False)))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_takes_part_in_decoding_as_in_training(backend: Backend, norm: str, name: str) -> None:
    """A parameter that is left at 0 or 1 in a test does not show where it is used."""
    cfg = config(norm=norm, tie=False)
    parameters, (tokens, targets) = random_parameters(cfg), batch(cfg, rows=1)
    before = GPT(cfg, backend, parameters).loss(tokens, targets)
    assert (np.abs(parameters[name] - parameters[name].round()) > 1e-6).all()  # no 0 and no 1
    parameters[name][...] *= 1.5
    model, ignored = GPT(cfg, backend, parameters), np.zeros(1, np.int32)
    if not name.endswith("attn.c_attn.bias"):  # a part of which, the keys', has no effect
        assert abs(model.loss(tokens, targets) - before) > 1e-6
    whole, decoder = model.logits(tokens)[0], Decoder(model)
    decoder.read(tokens[0, :2])
    for t in range(2, T):
        decoder.write(ignored, int(tokens[0, t]), GenerateConfig(run=""), 0)
        assert_close(f"logits at {t}", decoder.logits, whole[t], 1e-12)


def test_attention_maps_are_causal_shares(backend: Backend) -> None:
    cfg = config()
    tokens, _ = batch(cfg)
    maps = GPT(cfg, backend, random_parameters(cfg)).attention_maps(tokens[0])
    assert maps.shape == (cfg.layers, cfg.heads, T, T)
    assert not np.triu(maps, 1).any()
    assert_close("row sums", maps.sum(axis=-1), np.ones((cfg.layers, cfg.heads, T)), 1e-14)


INTEGERS = ["int8", "uint8", "int16", "uint32", "int64", "uint64", ">i4", ">i8"]


@pytest.mark.parametrize("integer", INTEGERS)
def test_tokens_of_any_integer_dtype_give_the_same_bits(backend: Backend, integer: str) -> None:
    cfg = config()
    tokens, targets = batch(cfg)
    model = GPT(cfg, backend, random_parameters(cfg))
    gradients = [Parameters(cfg), Parameters(cfg)]
    wanted = model.loss(tokens, targets), model.loss_and_gradients(tokens, targets, gradients[0])
    found_tokens, found_targets = tokens.astype(integer), np.asfortranarray(targets.astype(integer))
    found = (
        model.loss(found_tokens, found_targets), model.loss_and_gradients(found_tokens, found_targets, gradients[1])
    )  # fmt: skip
    assert found == wanted
    assert gradients[0].flat.tobytes() == gradients[1].flat.tobytes()
    assert model.logits(np.asfortranarray(tokens)).tobytes() == model.logits(tokens).tobytes()
    assert model.logits(found_tokens).tobytes() == model.logits(tokens).tobytes()
    assert model.attention_maps(found_tokens[0]).tobytes() == model.attention_maps(tokens[0]).tobytes()
    assert model.logits(tokens.tolist()).tobytes() == model.logits(tokens).tobytes()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("integer", "wrong"),
    [("int8", -1), ("int32", -1), ("int32", 7), ("uint32", 2**32 - 1), ("int64", 7), ("int64", -1), ("int64", 2**32),
     ("int64", 2**32 + 3), ("int64", -(2**32)), ("uint64", 2**63), ("uint64", 2**64 - 1), (">i4", 7), (">i4", -1)],
)  # fmt: skip
def test_ids_out_of_range_are_refused(backend: Backend, integer: str, wrong: int) -> None:
    """Also those whose lowest 32 bits are an id."""
    cfg = config()
    tokens, targets = (array.astype(integer) for array in batch(cfg))
    bad = tokens.copy()
    bad[1, 2] = wrong
    model, words = GPT(cfg, backend, random_parameters(cfg)), rf"is {wrong}; wanted 0 <= id < 7$"
    with pytest.raises(ContractError, match=rf"a batch: tokens\[1, 2\] {words}"):
        model.loss(bad, targets)
    with pytest.raises(ContractError, match=rf"a batch: targets\[1, 2\] {words}"):
        model.loss_and_gradients(tokens, bad, Parameters(cfg))
    with pytest.raises(ContractError, match=rf"a batch: tokens\[1, 2\] {words}"):
        model.logits(bad)
    with pytest.raises(ContractError, match=rf"a batch: tokens\[2\] {words}"):
        model.attention_maps(bad[1])


def test_what_is_no_batch_is_refused(backend: Backend) -> None:
    cfg = config()
    tokens, targets = batch(cfg)
    model = GPT(cfg, backend, random_parameters(cfg))
    floats, flags = tokens.astype(np.float64), tokens > 3
    for bad in (floats, flags, tokens[0], tokens[:0], [[0.5]], "text"):
        with pytest.raises(ContractError, match=r"a batch: tokens has shape .*; wanted integers of shape \(B, T\)"):
            model.logits(bad)  # type: ignore[arg-type]
        with pytest.raises(ContractError, match="a batch: targets has shape"):
            model.loss(tokens, bad)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=r"targets has shape \(2, 4\); wanted \(2, 5\), that of tokens"):
        model.loss(tokens, targets[:, 1:])
    with pytest.raises(ContractError, match=r"wanted integers of shape \(T\)"):
        model.attention_maps(tokens)


def test_initial_loss_is_that_of_a_guess(backend: Backend) -> None:
    cfg = config(dim=48, ctx=T, vocab_size=65)
    tokens, targets = batch(cfg, rows=8)
    loss = GPT(cfg, backend, Parameters.initial(cfg, seed=1)).loss(tokens, targets)
    assert abs(loss - np.log(65)) < 0.05


def test_too_long_a_batch_is_refused(backend: Backend) -> None:
    cfg = config(ctx=4)
    tokens, targets = batch(cfg)
    with pytest.raises(ValueError, match="5 tokens are more than the model's context of 4"):
        GPT(cfg, backend, random_parameters(cfg)).loss(tokens, targets)


def test_a_model_without_a_vocabulary_is_refused(backend: Backend) -> None:
    usual = ModelConfig()  # whose vocabulary is found in the text
    with pytest.raises(ConfigError, match="needs a vocabulary"):
        GPT(usual, backend, Parameters.initial(usual, seed=1))
