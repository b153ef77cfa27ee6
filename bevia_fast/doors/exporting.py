"""From a model to a folder that another program opens."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError
from ..files import MODEL, is_folder, mode, refuse_nul, sync_folder, write_atomically, writing
from ..model.parameters import Parameters
from ..naming import option
from ..runs.modelfile import save_model
from .families import family_of, their_tensors
from .foreign import write_file
from .hub import hub_files


def export_hub(parameters: Parameters, tokenizer: Vocabulary, step: int, folder: Path) -> None:
    """Write a model after optimizer step `step` into a new folder that Hugging Face's transformers opens.

    The commands of this program open a GPT-2 too; it imports the others. Raises ConfigError for a model without a
    counterpart there, and CheckpointError if the folder cannot be written or contains something.
    """
    parameters = with_biases(parameters)
    files, tensors = hub_files(parameters.config, tokenizer), their_tensors(parameters)  # raise before any is written
    with new_folder(folder) as place:
        if family_of(parameters.config) == "gpt2":
            save_model(place / MODEL, parameters, tokenizer, step)
        else:
            write_file(place / MODEL, tensors)
        for name, text in files.items():
            write_atomically(place / name, text.encode())


def with_biases(parameters: Parameters) -> Parameters:
    """Return the weights of a model that computes the same with biases, which are 0 where there were none.

    GPT-2 always has biases. transformers would make up those that are missing, and warn of it.
    """
    if parameters.config.bias:
        return parameters
    whole = Parameters(replace(parameters.config, bias=True))
    for name, view in parameters.items():
        whole[name][...] = view
    return whole


@contextlib.contextmanager
def new_folder(folder: Path, chosen: str = "to") -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` at the end of the context, whole, or is removed on an error.

    `chosen` is the option that names it. Raises CheckpointError if `folder` cannot be written, is a file, or contains
    something.
    """
    refuse_nul(folder, "a folder")
    with writing(folder):
        if mode(folder) and not is_folder(folder):
            raise CheckpointError(f"{folder} is not a folder; choose another one with {option(chosen)}.")
        if mode(folder) and any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty; choose a new folder with {option(chosen)}.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        place.mkdir()
    try:
        yield place
        with writing(folder):
            if mode(folder):
                folder.rmdir()  # empty; Windows does not rename onto a folder
            place.rename(folder)
            sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
