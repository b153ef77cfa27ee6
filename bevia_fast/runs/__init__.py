"""What a run leaves on disk, and how it is read again.

Begin with `folder`: the files of a run and the lock on them. `tensorfile` is the safetensors format with a checksum,
`modelfile` a trained model, `checkpoint` everything a run needs to resume; `trained` is the `Run` that Python users
hold. All of it is validated when it is read. How a run is trained is not known here.
"""
