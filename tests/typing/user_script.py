"""What a user writes: type checkers must find the package and its types in a plain install."""

from bevia_fast import GPT, ModelConfig, Parameters, Run, TrainConfig, generate, get_backend, train
from bevia_fast.kernels.contract import Backend

backend: Backend = get_backend("numpy")
config = ModelConfig(ctx=16, dim=16, layers=1, heads=1, vocab_size=65)
model = GPT(config, backend, Parameters.initial(config, seed=1))
run: Run = train(TrainConfig(data=["text.txt"], model=ModelConfig(dim=64, layers=2), steps=500))
text: str = generate(run, prompt="The ", length=200)
losses: list[float] = [record["val_loss"] for record in run.history]
print(model.config.dim, text, losses[-1])
