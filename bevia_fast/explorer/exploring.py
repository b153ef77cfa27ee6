"""From a run to the page in which it can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from ..config import BEST_ONE, BackendName, ConfigError, TrainConfig
from ..data.bpe import BPETokenizer
from ..data.tokenizer import Tokenizer
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, shown
from ..files import write_text
from ..kernels.contract import NORM_EPS
from ..machine import readable, refuse_too_large
from ..naming import option
from ..planning.memory import map_bytes
from ..reporter import Record
from ..runs.checkpoint import versions
from ..runs.trained import Run
from .assembly import assemble
from .encoding import Tensor, encode
from .film import Basis, film, frame_tensors, look
from .prompts import Prompt, asked_for, usual
from .sources import located
from .tracing import trace

FORMAT = 1
LARGEST = 8_000_000  # bytes of a page that opens quickly
SERVING = "the command line, which can serve a page of any size"
CURVE = 1500  # points of a loss curve that a page draws
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon, AdamW"}
ROUNDED = (
    "The engine rounds the operands of products to bfloat16 (8 bits), and this page does not: their numbers differ by "
    "about a percent."
)
SHOWN_OPTIONS = (
    "steps", "batch", "accumulate", "lr", "min_lr", "warmup", "weight_decay", "beta1", "beta2", "grad_clip", "seed",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Explorer:
    """The page of a run, as one text of HTML. A notebook shows it."""

    html: str
    notes: list[str]
    """What the page leaves out, in sentences."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.html.encode())

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, whole or not at all, and return its path. Raises CheckpointError."""
        write_text(str(path), self.html)
        return Path(path)

    def __repr__(self) -> str:
        return f"<Explorer: a page of {readable(self.size)}; .save(path) writes it>"

    def _repr_html_(self) -> str:
        # a sandbox without allow-same-origin: the page cannot reach the notebook around it
        return (
            f'<iframe sandbox="allow-scripts" style="width: 100%; height: 720px; border: 0" title="the explorer" '
            f'srcdoc="{escape(self.html)}"></iframe>'
        )


def explore(
    run: Run | str | Path,
    prompts: Sequence[str] | str = (),
    *,
    half: bool = False,
    backend: BackendName = "numpy",
    checkpoint: str | int = BEST_ONE,
) -> Explorer:
    """Return the page in which the model of `run` can be looked at; a notebook shows it, and `.save` writes it.

        explore(run, "for x in range").save("page.html")

    `run` is the result of `train`, or the path of a run folder or a model file, which is opened with `backend`;
    `checkpoint` chooses the model of a run folder, see `Run.load`.
    Without `prompts`, the page shows three pieces of the run's validation text. `half` stores the weights in half
    precision, for a larger model. Raises ConfigError if the page would have more than 8 MB, DataError for a prompt that
    the model cannot read, and CheckpointError for a path that holds no model.
    """
    if not isinstance(run, Run | str | Path):
        raise ConfigError(f"run is {shown(repr(run), 60)}; it must be a Run, or the path of a run folder.")
    if isinstance(run, str | Path):
        run = Run.load(run, backend, checkpoint=checkpoint)
    return make_page(run, [prompts] if isinstance(prompts, str) else list(prompts), half=half, most=LARGEST)


def make_page(
    run: Run, texts: Sequence[str] = (), *, half: bool = False, most: int | None = None, day: date | None = None,
    serving: str = SERVING, origin: str = "your prompt",
) -> Explorer:  # fmt: skip
    """Return the page of a run for the prompts `texts`, or for pieces of its validation text.

    `origin` says where the texts come from.
    `day` is the date that the page bears, today by default. Raises ConfigError if it has more than `most` bytes;
    `serving` says how a larger one can be seen.
    """
    found, note = (asked_for(run, texts, origin), "") if texts else usual(run)
    longest = max(prompt.tokens.size for prompt in found)
    refuse_too_large(4 * len(found) * map_bytes(run.model.config, longest), "A page for this")
    frames, no_film = film(run)
    rounded = ROUNDED if run.model.config.precision == "bf16" else ""
    notes = [each for each in (note, no_film, rounded) if each]
    tensors = list(_tensors(run, found))
    steps = []
    if frames:
        basis = Basis.of(run.model.parameters["wte.weight"])
        for number, frame in enumerate(look(run, frames)):
            steps.append(frame.step)
            tensors += frame_tensors(number, frame, found, basis)
    header = _header(run, found, steps, day or date.today())

    def page(half: bool) -> Explorer:
        about = ["The numbers are rounded to half precision (11 bits)."] if half else []
        entries, text = encode(tensors, half=half)
        return Explorer(assemble({**header, "tensors": entries, "notes": notes + about}, text), notes + about)

    made = page(half)
    if most is not None and made.size > most:
        raise ConfigError(_too_large(made.size, most, None if half else page(True).size, len(found), serving))
    return made


def _too_large(size: int, most: int, halved: int | None, prompts: int, serving: str) -> str:
    """Say that a page is too large, and what helps."""
    helps = []
    if halved is not None and halved <= most:
        helps.append(f"{option('half', True)} (it makes {readable(halved)})")
    if prompts > 1:
        helps.append("fewer prompts")
    helps.append(serving)
    listed = ", or ".join([", ".join(helps[:-1]), helps[-1]] if len(helps) > 1 else helps)
    return f"The page would have {readable(size)}; at most {readable(most)} open quickly. What helps: {listed}."


def _tensors(run: Run, prompts: Sequence[Prompt]) -> Iterator[Tensor]:
    """Yield the weights, and all stages of each prompt."""
    for name, view in run.model.parameters.items():
        yield Tensor(f"model/{name}", view)
    for index, prompt in enumerate(prompts):
        found, name = trace(run.model, prompt.tokens), f"prompt/{index}"
        yield Tensor(f"{name}/embedding", found.embedding)
        for number, layer in enumerate(found.layers):
            yield Tensor(f"{name}/block.{number}.attention", layer.attention)
            yield Tensor(f"{name}/block.{number}.mlp", layer.mlp)
            yield Tensor(f"{name}/block.{number}.scores", layer.scores)
            yield Tensor(f"{name}/block.{number}.weights", layer.weights, lower=True)
        yield Tensor(f"{name}/final", found.final)
        yield Tensor(f"{name}/logits", found.logits)


def _header(run: Run, prompts: Sequence[Prompt], steps: list[int], day: date) -> dict[str, Any]:
    c = run.model.config
    records = _records(run)
    at = {record["step"]: record for record in records}
    return {
        "format": FORMAT, "program": f"bevia-fast {versions()['bevia-fast']}", "run": _name(run),
        "made": day.isoformat(),
        "backend": run.model.backend.name, "dtype": c.dtype, "step": run.step,
        "config": {
            "vocab": c.vocab_size, "ctx": c.ctx, "dim": c.dim, "layers": c.layers, "heads": c.heads,
            "hidden": 4 * c.dim, "norm": c.norm, "activation": c.activation, "tie": c.tie, "bias": c.bias,
            "rotary": c.positions == "rotary", "windows": c.windows, "epsilon": NORM_EPS, "scale": c.scale,
            "residual": c.residual,
        },
        **vocabulary_for_page(run.tokenizer),
        "prompts": [{"tokens": prompt.tokens.tolist(), "origin": prompt.origin} for prompt in prompts],
        "curve": _curve(records),
        "train_config": _options(run),
        "film": [
            {"step": step, "train_loss": at.get(step, {}).get("loss"),
             "validation_loss": at.get(step, {}).get("val_loss")}
            for step in steps
        ],
        "sources": located(),
    }  # fmt: skip


def vocabulary_for_page(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what the page knows of tokens: an alphabet of code points, or the bytes of each and what joins them."""
    newline = {"newline": vocabulary.first}
    if isinstance(vocabulary, Tokenizer):
        return {"alphabet": list(map(ord, vocabulary.alphabet)), "pieces": None, **newline}
    bpe = vocabulary if isinstance(vocabulary, BPETokenizer) else None
    pieces = {
        "unit": vocabulary.unit,
        "bytes": [vocabulary.token_bytes(token).decode("latin-1") for token in range(len(vocabulary))],
        "single": bpe.single() if bpe else list(range(len(vocabulary))), "merges": bpe.merges() if bpe else [],
        "whole": bpe is not None and bool(bpe.about["model"].get("ignore_merges")),
        "special": bpe.added() if bpe else {},
    }  # fmt: skip
    return {"alphabet": [], "pieces": pieces, **newline}


def _name(run: Run) -> str:
    """Return the folder as commands in the page name it: from the current folder, or else its last two parts."""
    folder, here = run.folder.resolve(), Path.cwd()
    inside = folder.relative_to(here).parts if folder.is_relative_to(here) else ()
    return "/".join(inside or folder.parts[-2:])


def _records(run: Run) -> list[Record]:
    try:
        return run.history
    except CheckpointError:  # a model file without its run
        return []


def _curve(records: list[Record]) -> dict[str, list[Any]]:
    """Return the losses of evenly spaced steps, and of all steps that were evaluated."""
    every = -(-len(records) // CURVE)
    kept = [each for index, each in enumerate(records) if each["val_loss"] is not None or index % max(1, every) == 0]
    names = {"steps": "step", "train": "loss", "validation": "val_loss"}
    return {name: [_rounded(record[source]) for record in kept] for name, source in names.items()}


def _rounded(value: float | int | None) -> float | int | None:
    return round(value, 4) if isinstance(value, float) else value


def _options(run: Run) -> dict[str, Any]:
    """Return the options of training that the page names; none for a model file without its run."""
    try:
        config: TrainConfig = run.config
    except CheckpointError:
        return {}
    found = asdict(config)
    shown_options = {name: found[name] for name in SHOWN_OPTIONS}
    return {"optimizer": OPTIMIZERS[config.optimizer], "dropout": config.model.dropout, **shown_options}
