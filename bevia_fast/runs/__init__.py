"""What a run writes to disk, and how it is read back.

Begin with `folder`: the files of a run and the lock on them. `tensorfile` is the safetensors format with a checksum,
`modelfile` a trained model, `checkpoint` everything a run needs to resume; `trained` is the `Run` that Python users
hold. Everything is validated when it is read. This wing does not know how a run is trained.
"""
