"""Every number that a page explains: its formula gives it, and so do the numbers put in, down to the learned ones."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from browsing import TEXT, small_run
from showing import shown

from bevia_fast.explorer.exploring import make_page
from bevia_fast.explorer.sources import ANCHORS

KINDS = {
    "activated", "alike", "attention", "cosine", "drawn", "embedding", "final", "hidden", "k", "lens", "logit", "mixed",
    "mlp", "norm1", "norm2", "probability", "q", "scaled", "score", "stream1", "stream2", "sum1", "sum2", "surprise",
    "v", "weight",
}  # fmt: skip

# Follows the numbers put in from a few on, and checks each: returns what is wrong, the kinds, and the operations.
FOLLOW = """
async (typed) => {
  const data = await Bevia.data.read(document);
  const scenes = Bevia.scenes.open(data);
  const state = { ...Bevia.state.initial(data.header), temperature: 0.7, topK: 4, typed };
  const app = { data, scenes, state, header: data.header, scene: scenes.of(state),
    glyphs: Bevia.glyphs.of(data.header.alphabet) };
  const waiting = ["surprise.9", "probability.8.3", "drawn.8.2", "cosine.1.2", "alike.3.7", "lens.0.5.1",
    "lens.1.5.1", "lens.2.5.1", "mlp.0.6.2", "attention.1.4.3", "scaled.0.0.3.6", "sum1.0.4.1", "sum2.1.4.1",
    "stream1.1.2.3"];
  const far = (a, b) => !(a === b || Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(a), Math.abs(b)));
  const seen = new Set(waiting);
  const wrong = [];
  const kinds = new Set();
  const operations = new Set();
  const formulas = [];
  while (waiting.length && seen.size < 1500) {
    const address = waiting.shift();
    const found = Bevia.numbers.explain(app, address);
    if (!found) { wrong.push(`${address}: nothing`); continue; }
    kinds.add(address.split(".")[0]);
    operations.add(found.operation);
    formulas.push([address, found.filled, Number.isFinite(found.value) ? found.value : null]);
    if (found.engine !== undefined && far(found.engine, found.value))
      wrong.push(`${address}: the engine's ${found.engine}`);
    if (found.terms) {
      const { rows, rest } = found.terms;
      let sum = rest + rows.reduce((total, { product }) => total + product, 0);
      const bias = found.parts.find(({ label }) => label.startsWith("bias"));
      if (bias) sum += bias.value;
      if (/^(cosine|alike)/.test(address)) sum /= found.parts[0].value * found.parts[1].value;
      if (far(sum, found.value)) wrong.push(`${address}: ${found.value}, but its terms give ${sum}`);
    }
    const inputs = [...found.parts.map(({ ref, value }) => [ref, value]),
      ...(found.terms ? found.terms.rows.flatMap(({ a, aRef, b, bRef }) => [[aRef, a], [bRef, b]]) : [])];
    for (const [ref, value] of inputs) {
      if (!ref) continue;
      const input = Bevia.numbers.explain(app, ref);
      if (!input || far(input.value, value))
        wrong.push(`${address}: ${ref} is put in as ${value}, and is ${input?.value}`);
      if (!seen.has(ref)) { seen.add(ref); waiting.push(ref); }
    }
  }
  return { wrong, kinds: [...kinds].sort(), operations: [...operations], count: seen.size, formulas };
}
"""

# How a formula with its numbers is written, and how Python writes it.
WRITTEN = (
    ("−", "-"), ("·", "*"), ("×10^", "e"), ("³", "**3"), ("exp(", "math.exp("), ("tanh(", "math.tanh("),
    ("√(", "math.sqrt("),
)  # fmt: skip
WORDS = re.compile(r"mean|softmax|cut off|later|first|…")  # of formulas that are no arithmetic


def evaluated(formula: str) -> float:
    """Return what a formula gives in which the numbers, of about 4 digits, are put in."""
    for written, meant in WRITTEN:
        formula = formula.replace(written, meant)
    formula = re.sub(r"√(\d+)", r"math.sqrt(\1)", formula)
    formula = re.sub(r"-ln (\S+)", r"-math.log(\1)", formula)
    formula = re.sub(r" from \d+ more", "", formula)
    return float(eval(formula, {"math": math, "max": max, "erf": math.erf, "sqrt": math.sqrt}))


def wrong_formulas(formulas: list[tuple[str, str, float | None]]) -> list[str]:
    """Return the formulas that do not give their numbers, to within what the digits of the numbers put in allow."""
    wrong = []
    for address, formula, value in formulas:
        if value is None or WORDS.search(formula):
            continue
        sizes = [abs(float(text)) for text in re.findall(r"\d+\.\d+", formula)]
        if abs(evaluated(formula) - value) > 2e-3 * max(1.0, value, *sizes) ** 2:
            wrong.append(f"{address}: {formula} is not {value}")
    return wrong


MODELS = [
    {},
    {"norm": "post", "activation": "relu", "tie": False, "bias": False, "heads": 1},
    {"norm": "post", "layers": 1, "heads": 4, "activation": "gelu_erf"},
    {"positions": "rotary"},
    {"scale": False, "residual": False},
]


@pytest.mark.parametrize("sizes", MODELS, ids=lambda sizes: "-".join(map(str, sizes.values())) or "usual")
@pytest.mark.parametrize("typed", [[], [1, 2, 3]], ids=["prompt", "typed"])
def test_numbers_are_made_of_numbers(browser: Any, tmp_path: Path, sizes: dict[str, Any], typed: list[int]) -> None:
    run, rotary = small_run(tmp_path, **{"layers": 2, **sizes}), "positions" in sizes
    with shown(browser, tmp_path / "page.html", make_page(run, [TEXT]).html) as page:
        if run.model.config.layers == 1:
            typed = typed[:1]
        found = page.run(FOLLOW.replace("attention.1.4.3", "attention.0.4.3").replace("1.4.1", "0.4.1")
                         .replace("stream1.1.2", "stream1.0.2")
                         .replace("alike.3.7" if rotary else "no address", "cosine.2.3"), typed)  # fmt: skip
    assert found["wrong"] == []
    assert wrong_formulas(found["formulas"]) == []
    # with post-norm, the stream is what the norms return
    absent = ({"norm1", "norm2"} if run.model.config.norm == "post" else set()) | ({"alike"} if rotary else set())
    assert set(found["kinds"]) == KINDS - absent
    assert found["count"] > 300
    assert set(found["operations"]) - {""} <= set(ANCHORS)
    missing = set(ANCHORS) - set(found["operations"])
    usual = run.model.config.residual
    others = ({"no_scale", "no_residual"} if usual else {"scale", "residual"}) | (set() if rotary else {"rotary"})
    assert missing == {"relu", "gelu", "gelu_erf"} - {run.model.config.activation} | others


def test_a_person_follows_a_number_to_what_was_learned(browser: Any, tmp_path: Path) -> None:
    with shown(browser, tmp_path / "page.html", make_page(small_run(tmp_path), [TEXT]).html) as page:
        page.go(at=9)
        page.page.click("#text-card .readout .value")
        assert page.text("#dock h3") == "Surprise"
        assert "cross_entropy.py" in page.text("#dock .file")
        page.page.click("#dock .inputs .value")
        assert page.text("#dock h3") == "Probability"
        page.page.click("text=Go deeper")
        titles = [page.text("#view-number .what h3")]
        for _ in range(40):
            values = page.page.locator("#view-number .inputs button.value")
            if not values.count():
                break
            values.first.click()
            titles.append(page.text("#view-number .what h3"))
        assert titles[:3] == ["Probability", "Logit", "Final normalization"]
        assert titles[-1] == "Embedding"
        assert "learned" in page.text("#view-number .inputs")
        page.page.click("#view-number .trail-of-numbers button:last-child")
        assert page.text("#view-number .what h3") == titles[-2]


def test_half_precision_is_said(browser: Any, tmp_path: Path) -> None:
    with shown(browser, tmp_path / "page.html", make_page(small_run(tmp_path), [TEXT], half=True).html) as page:
        page.go(at=9, number="logit.9.1")
        assert "rounded" in page.text(".origin")
        assert "in half precision" in page.text("#dock .what .caption:last-child")


NOWHERE = (
    "constructor", "constructor.0", "alike.99.0", "trainloss.0", "weight.0.0.23.0", "logit.0", "toString",
    "surprise.-1", "nothing.1", "lens.99.0.0",
)  # fmt: skip


def test_a_number_that_the_text_does_not_have(browser: Any, tmp_path: Path) -> None:
    with shown(browser, tmp_path / "page.html", make_page(small_run(tmp_path), [TEXT]).html) as page:
        for number in NOWHERE:
            page.go(view="number", number=number)
            assert page.texts("#view-number .explained h3")[0] in {"No such number", "Probability"}
