"""Doors to other programs: models of ours that they open, and models of theirs that this program opens.

Begin with `hub`: the files beside model.safetensors that Hugging Face's transformers reads. This wing does not know how
a run is trained, and needs none of the programs that it writes for.
"""
