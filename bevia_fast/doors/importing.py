"""From another program's model to a run folder of ours."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..config import TrainConfig
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, shown
from ..files import MODEL, OPTIONS, is_folder, mode, reading, refuse_nul, write_atomically
from ..model.parameters import Parameters
from ..naming import option
from ..runs.folder import config_text
from ..runs.modelfile import save_model
from .alphabets import read_alphabet
from .exporting import new_folder
from .gpt2 import assembled
from .hub import write_hub_files
from .hub_model import read_hub
from .llmc import read_llmc
from .nanogpt import read_nanogpt


def import_model(source: Path, vocabulary: str) -> tuple[Parameters, Vocabulary, int]:
    """Return the weights, the vocabulary and the steps of training of another program's model.

    `source` is a folder of transformers, a ckpt.pt of nanoGPT or a .bin of llm.c. `vocabulary` names the file with its
    characters; a folder has its own. Raises CheckpointError if a file cannot be read or computes something else.
    """
    refuse_nul(source, "a model")
    with reading(source):
        folder = is_folder(source)
        if not folder and not mode(source):
            raise CheckpointError(f"There is no model {source}.")
    kind = source.suffix.lower()
    if not folder and kind not in (".pt", ".bin"):
        raise CheckpointError(
            f"{source} is neither a folder of transformers, nor a .pt file of nanoGPT, nor a .bin file of llm.c."
        )
    tokens = read_alphabet(_vocabulary(source, folder, vocabulary))
    model = read_hub(source) if folder else read_nanogpt(source) if kind == ".pt" else read_llmc(source)
    return *assembled(source, model, tokens), model.step


def _vocabulary(source: Path, folder: bool, given: str) -> Path:
    """Return the file with the characters of a model. Raises CheckpointError if nobody knows them."""
    if given:
        refuse_nul(given, "a vocabulary")
        return Path(given)
    own = source / "tokenizer.json"
    with reading(source):
        if folder and mode(own):
            return own
    raise CheckpointError(
        f"{source} does not say which characters its tokens are; {option('vocabulary')} names a meta.pkl of nanoGPT, "
        "a tokenizer.json, or a text with all of them."
    )


def write_imported(source: Path, parameters: Parameters, tokenizer: Vocabulary, step: int, folder: Path) -> None:
    """Write an imported model as a new run folder, which every command opens.

    Raises CheckpointError if the folder cannot be written or contains something.
    """
    options = {
        "format_version": 1,
        **asdict(TrainConfig(model=parameters.config, tokens=tokenizer.name)),
        "facts": {"imported": shown(source)},
    }
    with new_folder(folder, "out") as place:
        save_model(place / MODEL, parameters, tokenizer, step)
        write_atomically(place / OPTIONS, config_text(options).encode())
        write_hub_files(place, parameters.config, tokenizer)
