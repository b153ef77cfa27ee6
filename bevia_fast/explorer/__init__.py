"""One file in which a trained model can be looked at: the page that `bevia-fast explore` writes.

Begin with `exploring`: from a run to a page. `prompts` chooses the texts, `tracing` computes every stage of one with
the engine, `film` looks at them through the film of the run, `encoding` packs the numbers, `sources` finds the line of
code behind each, and `assembly` puts the page together from the files in `page/`. There, `forward.js` is the model once
more, for the texts that are typed into the page. `serving` is for pages that are too large. This wing only reads runs.
"""
