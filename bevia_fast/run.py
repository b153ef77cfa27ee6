"""A trained model in use: where it lies, and what computes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import BackendName
from .errors import ConfigError
from .files import read_metrics
from .kernels import Backend, get_backend
from .kernels.memory import keep_freed_memory
from .model import GPT
from .modelfile import load_model, model_path
from .tokenizer import Tokenizer


@dataclass
class Run:
    """What `train` returns and `Run.load` finds: a model with its vocabulary, and the folder it lies in."""

    folder: Path
    model: GPT
    tokenizer: Tokenizer
    interrupted: int = 0
    """Number of the signal that ended training before its last step: 2 for Ctrl-C. 0: none did."""

    @classmethod
    def load(cls, path: str | Path, backend: BackendName = "numba", threads: int = 0) -> Run:
        """Read a run folder or a model file. Raises CheckpointError in one sentence."""
        parameters, tokenizer = load_model(path)
        model = GPT(parameters.config, open_backend(backend, threads), parameters)
        return cls(model_path(path).parent, model, tokenizer)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, one for each step: step, loss, val_loss, lr, grad_norm, tokens_per_s."""
        return read_metrics(self.folder)


def open_backend(name: BackendName, threads: int = 0) -> Backend:
    """The kernels called `name`, on that many threads; 0 means one for each physical core.

    Only numba's are counted here: NumPy's matrix products use the threads of its own library. For it, memory that is
    let go stays with the process from then on.
    """
    try:
        backend = get_backend(name)
    except ImportError as error:
        raise ConfigError(f"The {name} backend does not load: {error}.") from error
    if name == "numpy":
        keep_freed_memory()
    else:
        from .kernels.numba_jit._runtime import threads as kernel_threads

        try:
            kernel_threads.set_threads(threads or None)
        except kernel_threads.LayerError as error:
            raise ConfigError(f"{error}.") from None
        except ValueError as error:
            raise ConfigError(f"--threads {threads} cannot be had: {str(error).rstrip('.')}.") from None
    return backend


def cache_folder() -> Path:
    """Where the numba backend keeps its compiled code."""
    from .kernels.numba_jit._runtime import cache as kernel_cache

    return kernel_cache.FOLDER


def describe_backend(backend: Backend) -> str:
    """What computes, in a few words."""
    if backend.name == "numba":
        from .kernels.numba_jit._runtime import threads as kernel_threads

        return f"numba, {kernel_threads.describe()}"
    import numpy

    return f"numpy {numpy.__version__}"
