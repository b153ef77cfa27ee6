"""`bevia-fast parameters`."""

from __future__ import annotations

from dataclasses import replace

from ..config import ParametersConfig
from ..model.parameters import parameter_specs
from ..runs.modelfile import load_model
from .tables import FittedConsole, make_table


def run(config: ParametersConfig) -> int:
    """Print the table; return the exit code."""
    model = replace(config.model, vocab_size=config.vocab_size)
    if config.run:
        model = load_model(config.run)[0].config
    specs = parameter_specs(model)
    rows = [[spec.name, " x ".join(map(str, spec.shape)), f"{spec.count:,}"] for spec in specs]
    rows.append(["total", model.dtype, f"{sum(spec.count for spec in specs):,}"])
    FittedConsole().show(make_table("", ["name"], ["shape", "count"], rows, ["count"]))
    return 0
