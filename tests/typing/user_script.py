"""What a user writes: type checkers must find the package and its types in a plain install."""

from pathlib import Path

from bevia_fast import (
    GPT,
    ModelConfig,
    Parameters,
    Reporter,
    Run,
    TensorBoardReporter,
    TrainConfig,
    generate,
    get_backend,
    resume,
    train,
)
from bevia_fast.kernels.contract import Backend

backend: Backend = get_backend("numpy")
config = ModelConfig(ctx=16, dim=16, layers=1, heads=1, vocab_size=65)
model = GPT(config, backend, Parameters.initial(config, seed=1))
run: Run = train(TrainConfig(data=["text.txt"], model=ModelConfig(dim=64, layers=2), steps=500))
text: str = generate(run, prompt="The ", length=200)
losses: list[float] = [record["val_loss"] for record in run.history]


class Losses(Reporter):
    def step(self, record: dict[str, object]) -> None:
        print(record["loss"])


again: Run = train(resume(run.folder, steps=600), [Losses(), TensorBoardReporter()], progress=True)
saved: Path = again.save("model.safetensors")
rate: float = again.config.lr
again.plot().savefig("loss.png")
print(model.config.dim, text, losses[-1], rate, saved, generate(saved, temperature=0.5, top_k=5))
