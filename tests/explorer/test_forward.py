"""What the page computes, in a real browser: every stage is NumPy's, and the text from a seed is the program's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import SIZES, TEXT, array, opened, small_run
from stages import stages

from bevia_fast import generate
from bevia_fast.explorer import assembly
from bevia_fast.explorer.exploring import make_page
from bevia_fast.explorer.leaning import lean_script
from bevia_fast.explorer.tracing import lens, trace
from bevia_fast.runs.trained import Run

TOLERANCE = 1e-10  # of a stage's largest number

# Computes the first prompt twice: at once, and from 3 tokens on one by one.
COMPUTE = """
async () => {
  const data = await Bevia.data.read(document);
  const model = new Bevia.forward.Model(data.header.config, data.weights());
  const tokens = data.header.prompts[0].tokens;
  const whole = model.forward(tokens);
  const grown = tokens.slice(3).reduce((trace, token) => trace.extend(token), model.forward(tokens.slice(0, 3)));
  const flat = (trace) => {
    const found = {};
    for (const name of ["embedding", "final", "logits", "probabilities"]) found[name] = Array.from(trace[name]);
    trace.blocks.forEach((block, layer) => {
      for (const name of Object.keys(block)) found[`${layer}.${name}`] = Array.from(block[name]);
    });
    return found;
  };
  const streams = [whole.embedding, ...whole.blocks.flatMap((block) => [block.stream1, block.stream2])];
  const lens = streams.map((stream) => tokens.map((_, position) => Array.from(model.lens(stream, position))));
  return { whole: flat(whole), grown: flat(grown), lens };
}
"""

WRITE = """
async ({ prompt, length, seed, options }) => {
  const data = await Bevia.data.read(document);
  const model = new Bevia.forward.Model(data.header.config, data.weights());
  const key = Bevia.rng.streamKey(BigInt(seed), "sampling");
  let trace = model.forward(prompt.slice(-data.header.config.ctx));
  const written = [];
  for (let number = 0; number < length; number++) {
    const logits = trace.logits.slice(-data.header.config.vocab);
    const token = Bevia.sampling.draw(logits, options, Bevia.rng.uniform(key, number));
    written.push(token);
    if (number + 1 < length) trace = model.follow(trace, token);
  }
  return written;
}
"""


def wrong_stages(computed: dict[str, Any], run: Run) -> list[str]:
    """Return what differs from NumPy by more than the tolerance, with the error in units of the stage's scale."""
    wrong = []
    wanted = stages(run.model.parameters, run.tokenizer.encode(TEXT))
    assert computed.keys() == wanted.keys()
    for name, value in wanted.items():
        found = array(computed[name], *value.shape)
        finite = np.isfinite(value)
        if not (np.isfinite(found) == finite).all():
            wrong.append(f"{name}: infinite elsewhere")
            continue
        error = np.abs(found[finite] - value[finite]).max() / np.abs(value[finite]).max()
        if not error <= TOLERANCE:
            wrong.append(f"{name}: {error:.2g}")
    return wrong


ROTARY = [{"positions": "rotary", "heads": heads, "norm": norm} for heads in (1, 2) for norm in ("pre", "post")]

WINDOWS = [{"window": 2, "heads": 2}, {"window": 3, "window_layers": "all", "heads": 1, "norm": "post"}]


@pytest.mark.parametrize("sizes", SIZES + ROTARY + WINDOWS, ids=lambda sizes: "-".join(map(str, sizes.values())))
def test_every_stage_is_that_of_numpy(browser: Any, tmp_path: Path, sizes: dict[str, Any]) -> None:
    run = small_run(tmp_path, **sizes)
    with opened(browser, tmp_path / "page.html", make_page(run, [TEXT]).html) as page:
        found = page.run(COMPUTE)
    assert wrong_stages(found["whole"], run) == []
    assert found["grown"] == found["whole"]  # to the last bit
    assert found["lens"][-1] == array(found["whole"]["probabilities"], len(TEXT), -1).tolist()
    wanted = lens(run.model, trace(run.model, run.tokenizer.encode(TEXT)))
    assert np.abs(np.array(found["lens"]) - wanted[:-1]).max() <= TOLERANCE


MUTATIONS = {
    "the mask": ("j > i || (", "j > i + 1 || ("),
    "the window": ("i - j >= window", "i - j > window"),
    "the scale": ("dot / Math.sqrt(HS)", "dot / Math.sqrt(C)"),
    "the heads": ("c = h * HS; c < (h + 1) * HS; c++) dot", "c = 0; c < HS; c++) dot"),
    "the mean": ("variance += (inp[start + c] - mean) ** 2", "variance += inp[start + c] ** 2"),
    "epsilon": ("Math.sqrt(variance + epsilon)", "Math.sqrt(variance)"),
    "gelu": ("0.044715 * (x", "0.044175 * (x"),
    "gelu_erf": ("size * size / odd", "size / odd"),
    "relu": ("return Math.max(x, 0)", "return Math.abs(x)"),
    "the residual": ("add(b.sum2, b.stream1, b.mlp, C, first)", "add(b.sum2, x, b.mlp, C, first)"),
    "post-norm": ("b.stream1 = pre ? b.sum1 : b.norm1", "b.stream1 = b.sum1"),
    "the tied head": ('config.tie ? "wte.weight" : "lm_head.weight"', '"wte.weight"'),
    "the bias": ("row[oc] += bias[oc]", "row[oc] -= bias[oc]"),
    "the position": ("positionTable?.[t * C + c]", "positionTable?.[c]"),
    "the cache": ("j = i < first ? first : 0", "j = first"),
}  # fmt: skip


def mutate(monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    """Change the one place of the page's numerics that has the text `right`."""
    programs = [assembly.asset(name) for name in assembly.NUMERICS]
    [program] = [program for program in programs if right in program]
    assert program.count(right) == 1
    mutated = program.replace(right, wrong)
    monkeypatch.setattr(assembly, "lean_script", lambda text: lean_script(mutated if text == program else text))


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_line_is_noticed(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each mutation of a line of the page's text makes the comparison above fail."""
    mutate(monkeypatch, *MUTATIONS[name])
    noticed = []
    for sizes in (
        {"norm": "pre", "activation": "gelu", "tie": True, "bias": True, "heads": 2},
        {"norm": "post", "activation": "relu", "tie": False, "bias": True, "heads": 4, "window": 2},
        *([{"norm": "pre", "activation": "gelu_erf"}] if name == "gelu_erf" else []),
    ):
        run = small_run(tmp_path, **sizes)
        with opened(browser, tmp_path / "page.html", make_page(run, [TEXT]).html) as page:
            found = page.run(COMPUTE)
        noticed += wrong_stages(found["whole"], run)
        noticed += ["one by one"] if found["grown"] != found["whole"] else []
    assert noticed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.5, "seed": 7},
        {"temperature": 2.0, "top_k": 5, "seed": 2**63 - 1},
        {"temperature": 1.3, "top_p": 0.9},
        {"temperature": 1.7, "top_k": 6, "top_p": 0.8, "seed": 3},
        {"temperature": 0.0},
        {"temperature": 0.8, "norm": "post", "activation": "relu", "tie": False, "bias": False, "ctx": 9},
        {"temperature": 1.2, "ctx": 1},
        {"temperature": 0.8, "scale": False, "residual": False},
    ],
    ids=str,
)
def test_the_page_writes_the_same_text(browser: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """500 characters, many times the context, are those of `generate` from the same seed."""
    wanted, written = both_texts(browser, tmp_path, options)
    assert written == wanted
    assert options.get("temperature") == 0.0 or len(set(wanted)) > 3


DRAWING_MUTATIONS = {
    "the mixer": ("x >> 30n", "x >> 31n"),
    "the number of the draw": ("(BigInt(index) + 1n)", "BigInt(index)"),
    "the bits": (">> 11n) / 2 ** 53", ">> 11n) / 2 ** 54"),
    "the temperature": ("- largest) / temperature", "- largest)"),
    "top-k": ("order.slice(0, topK)", "order.slice(0, topK + 1)"),
    "top-p": ("sum >= topP * total", "sum >= topP"),
    "the order": ("logits[b] - logits[a] || a - b", "a - b"),
    "the window": ("Math.floor(ctx / 2)", "Math.ceil(ctx / 3)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWING_MUTATIONS)
def test_a_wrong_line_of_drawing_is_noticed(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mutate(monkeypatch, *DRAWING_MUTATIONS[name])
    wanted, written = both_texts(browser, tmp_path, {"temperature": 1.7, "top_k": 6, "top_p": 0.8, "seed": 3})
    assert written != wanted


def both_texts(browser: Any, folder: Path, options: dict[str, Any]) -> tuple[str, str]:
    """Return 500 characters as `generate` writes them and as the page does."""
    drawing = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "seed": 1337}
    sizes = {name: value for name, value in options.items() if name not in drawing}
    drawing |= {name: value for name, value in options.items() if name in drawing}
    run, prompt = small_run(folder, **sizes), TEXT[:4]
    wanted = generate(run, prompt, length=500, **drawing)  # type: ignore[arg-type]
    argument = {
        "prompt": run.tokenizer.encode(prompt).tolist(), "length": 500, "seed": str(drawing["seed"]),
        "options": {"temperature": drawing["temperature"], "topK": drawing["top_k"], "topP": drawing["top_p"]},
    }  # fmt: skip
    with opened(browser, folder / "page.html", make_page(run, [prompt[: run.model.config.ctx]]).html) as page:
        written = page.run(WRITE, argument)
    return wanted[len(prompt) :], run.tokenizer.decode(np.array(written))


def test_the_probabilities_are_those_that_are_drawn_from(browser: Any, tmp_path: Path) -> None:
    """They are shares of 1 of the tokens that top-k and top-p leave, and 0 for the others."""
    run = small_run(tmp_path)
    logits = [0.3, 2.0, 0.3, -1.0, 1.0]
    script = "([logits, options]) => Array.from(Bevia.sampling.probabilities(Float64Array.from(logits), options))"
    with opened(browser, tmp_path / "page.html", make_page(run, [TEXT]).html) as page:
        def found(temperature: float, top_k: int = 0, top_p: float = 1.0) -> list[float]:
            options = {"temperature": temperature, "topK": top_k, "topP": top_p}
            result: list[float] = page.run(script, [logits, options])
            return result

        scaled = np.exp(np.array(logits) / 0.7)
        assert found(0.7) == pytest.approx(scaled / scaled.sum(), abs=1e-15)
        assert found(0.0) == [0, 1, 0, 0, 0]
        kept = np.array([1, 1, 0, 0, 1]) * np.exp(logits)  # the first of two that are equal
        assert found(1.0, top_k=3) == pytest.approx(kept / kept.sum(), abs=1e-15)
        assert found(1.0, top_p=0.5) == [0, 1, 0, 0, 0]
        kept = np.array([0, 1, 0, 0, 1]) * np.exp(logits)
        assert found(1.0, top_p=0.7) == pytest.approx(kept / kept.sum(), abs=1e-15)
