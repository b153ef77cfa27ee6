"""`bevia-fast parameters`."""

from __future__ import annotations

from dataclasses import replace

from rich.table import Table

from ..config import ParametersConfig
from ..model.parameters import parameter_specs
from ..runs.modelfile import load_model
from .console import PlainConsole


def run(config: ParametersConfig) -> int:
    """Print the table; return the exit code."""
    model = replace(config.model, vocab_size=config.vocab_size)
    if config.run:
        model = load_model(config.run)[0].config
    table = Table()
    table.add_column("name")
    table.add_column("shape", justify="right")
    table.add_column("count", justify="right")
    specs = parameter_specs(model)
    for spec in specs:
        table.add_row(spec.name, " x ".join(map(str, spec.shape)), f"{spec.count:,}")
    table.add_section()
    table.add_row("total", model.dtype, f"{sum(spec.count for spec in specs):,}")
    PlainConsole().print(table)
    return 0
