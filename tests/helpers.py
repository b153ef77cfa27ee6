"""Assertions that report which tensor is wrong, where and by how much; finite differences; subprocesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from bevia_fast.agreement.comparison import Case, compare, difference
from bevia_fast.agreement.gradients import numerical_gradient
from bevia_fast.config import ModelConfig
from bevia_fast.kernels import BACKENDS
from bevia_fast.model.parameters import Parameters

Array = NDArray[Any]

# For hypothesis, which rejects function-scoped fixtures because it calls one test many times.
each_backend = pytest.mark.parametrize("name", list(BACKENDS))

GRADIENT_TOLERANCE = 1e-6
EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}


def assert_close(
    tensor: str, actual: ArrayLike, expected: ArrayLike, tolerance: float, relative_to: float | None = None
) -> None:
    """Assert that |actual - expected| <= tolerance * max |expected| (or tolerance * `relative_to`) everywhere."""
    result = difference(tensor, np.asarray(actual), np.asarray(expected), tolerance, relative_to)
    assert result.ok, str(result)


def assert_backends_agree(case: Case, dtype: str) -> None:
    """Assert that Numba and NumPy agree within the package's tolerances, and that Numba does not modify its inputs."""
    wrong = [str(result) for result in compare(case, dtype, "numba", "numpy") if not result.ok]
    assert not wrong, "\n".join(wrong)


def assert_is_gradient(name: str, gradient: Array, loss: Callable[[], float], array: Array) -> None:
    """Assert that `gradient` is d loss() / d array, by central differences at every element. Restores `array`."""
    assert_close(f"gradient by {name}", gradient, numerical_gradient(loss, array), GRADIENT_TOLERANCE)


def normal(seed: int, *shape: int, dtype: str = "float64") -> Array:
    """Return an array of standard normal random numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def random_parameters(config: ModelConfig, seed: int = 1) -> Parameters:
    """Return weights so large that every path through the model matters; the initial weights are close to 0."""
    parameters, random = Parameters(config), np.random.default_rng(seed)
    for name, view in parameters.items():
        view[...] = random.normal(1.0 if "ln" in name and "weight" in name else 0.0, 0.5, view.shape)
    return parameters


def python_path() -> str:
    """Return a PYTHONPATH that lets a script in another process import the modules that the tests import."""
    tests = str(Path(__file__).parent)
    own = [entry for entry in sys.path if entry.startswith(tests)]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


def in_a_process(script: str, argument: object, **variables: str) -> Any:
    """Run a script in another process and return the JSON that it prints."""
    environment = os.environ | variables | {"PYTHONPATH": python_path()}
    command = [sys.executable, "-c", script, json.dumps(argument)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
