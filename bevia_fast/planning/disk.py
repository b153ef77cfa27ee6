"""How much a run writes to disk, found without writing it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..config import ModelConfig, TrainConfig
from ..kernels.memory import outline
from ..model.parameters import Parameters
from ..runs.film import film_steps


@dataclass(frozen=True)
class Disk:
    """Bytes that a run's folder takes at most once it is over, without the few kB of its other files."""

    checkpoints: int  # --keep of them, with weights and moments
    models: int  # the last one, the best one, and the best ones that the checkpoints name
    film: int  # in float32

    @property
    def total(self) -> int:
        return self.checkpoints + self.models + self.film


def run_on_disk(config: TrainConfig, model: ModelConfig) -> Disk:
    """Return what a run of `config` leaves on disk. While a checkpoint is written, it is there once more."""
    weights = Parameters(model, empty=outline)
    muon = config.optimizer == "muon"
    moments = weights.flat.nbytes + Parameters(model, empty=outline, hidden=not muon).flat.nbytes
    frames = len(film_steps(config.steps, config.film))
    single = Parameters(replace(model, dtype="float32"), empty=outline).flat.nbytes
    return Disk(
        config.keep * (weights.flat.nbytes + moments), (2 + config.keep) * weights.flat.nbytes, frames * single
    )
