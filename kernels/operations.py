"""Every operation of the kernels: its signature, its formula, the shapes of its arrays, its errors and its cost.

Letters:  B batch · T time (context) · C channels · NH heads · HS = C/NH head size · V vocabulary · N = B·T rows ·
          OC output channels · P parameters · R rows of attention weights · S places in a key/value cache · L layers ·
          G groups of M hidden units · D tokens to draw · H = HS/2 · K windows with a key/value cache

Arguments: outputs first, then inputs, then what the forward pass saved; options are keywords.
Shapes:    `"B T 3*C"` floats · `"int32<V B T"` token ids below V · `?` may be None · `~` in either memory order ·
           `!` an output
Precision: an operation with this option may round the operands of its products; see `kernels.bfloat16`
Cost:      the first argument of `operation` gives the floating-point operations; see `kernels.costs`
"""

from __future__ import annotations

from .checks import Activation, Norm, Precision
from .costs import FUNCTION, decoding_flops, muon_flops, pairs_seen
from .declaration import Array, operation
from .newton_schulz import MatrixAt

NORM_EPS = 1e-5  # of layer normalization


@operation(
    lambda d: d["position_table"] * d["B"] * d["T"] * d["C"],
    gathered=("token_table",),
    out="B T C!", tokens="int32<V B T", token_table="V C", position_table="T C?",
)  # fmt: skip
def embedding_forward(out: Array, tokens: Array, token_table: Array, position_table: Array | None) -> None:
    """out[b,t] = token_table[tokens[b,t]] + position_table[t]"""


@operation(
    lambda d: (1 + d["dposition_table"]) * d["B"] * d["T"] * d["C"],
    twice=("dtoken_table", "dposition_table"),
    gathered=("dtoken_table",),
    dtoken_table="V C!", dposition_table="T C?!", dout="B T C", tokens="int32<V B T",
)  # fmt: skip
def embedding_backward(dtoken_table: Array, dposition_table: Array | None, dout: Array, tokens: Array) -> None:
    """dtoken_table[v] += sum of dout[b,t] over all (b,t) with tokens[b,t] = v;  dposition_table[t] += sum_b dout[b,t]

    The order of the sums does not depend on the number of threads.
    """


@operation(
    lambda d: (6 + d["bias"]) * d["N"] * d["C"],
    out="N C!", mean="N!", rstd="N!", inp="N C", weight="C", bias="C?",
)  # fmt: skip
def layernorm_forward(
    out: Array, mean: Array, rstd: Array, inp: Array, weight: Array, bias: Array | None, *, eps: float = NORM_EPS
) -> None:
    """out = (inp - mean) * rstd * weight + bias,  for each row (Ba et al. 2016, eq. 4)

    mean = sum_c inp / C;  rstd = 1 / sqrt(sum_c (inp - mean)^2 / C + eps).  Both are saved for the backward pass.
    """


@operation(
    lambda d: (12 + d["dbias"] + d["dresidual"]) * d["N"] * d["C"],
    twice=("dweight", "dbias"),
    dinp="N C!", dweight="C!", dbias="C?!", dout="N C", inp="N C", weight="C", mean="N", rstd="N", dresidual="N C?",
)  # fmt: skip
def layernorm_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array, mean: Array, rstd: Array,
    *, dresidual: Array | None = None,
) -> None:  # fmt: skip
    """With norm = (inp - mean) * rstd and dnorm = dout * weight, for each row:

    dinp = (dnorm - mean_c(dnorm) - norm * mean_c(dnorm * norm)) * rstd  + dresidual
    dweight += sum_n dout * norm;  dbias += sum_n dout

    In place: dinp may be dout or dresidual.
    """


@operation(
    lambda d: 2 * d["N"] * d["C"] * d["OC"],
    out="N OC!", inp="N C", weight="C OC~", bias="OC?", preactivation="N OC?!", residual="N OC?",
)  # fmt: skip
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    """out = activation(inp @ weight + bias) + residual

    `preactivation`, if given, receives inp @ weight + bias, which the gradient of the activation needs.

    In place: out may be residual.
    """


@operation(
    lambda d: 4 * d["N"] * d["C"] * d["OC"],
    twice=("dweight", "dbias"),
    dinp="N C!", dweight="C OC~!", dbias="OC?!", dout="N OC", inp="N C", weight="C OC~", preactivation="N C?",
    dresidual="N C?",
)  # fmt: skip
def linear_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array,
    *, activation: Activation | None = None, preactivation: Array | None = None, dresidual: Array | None = None,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    """dinp = dout @ weight^T + dresidual;  dweight += inp^T @ dout;  dbias += sum_n dout

    `activation` names the activation of the layer before, inp = activation(preactivation). Then dinp is the gradient of
    that layer's preactivation: dinp = (dout @ weight^T) * activation'(preactivation) + dresidual.

    In place: dinp may be dresidual.
    """


@operation(lambda d: d["N"] * d["C"], out="N C!", inp="N C")
def relu_forward(out: Array, inp: Array) -> None:
    """out = max(inp, 0);  NaN stays NaN.  In place: out may be inp."""


@operation(lambda d: d["N"] * d["C"], dinp="N C!", dout="N C", inp="N C")
def relu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    """dinp = dout where inp > 0, else 0.  In place: dinp may be dout."""


@operation(lambda d: (8 + FUNCTION) * d["N"] * d["C"], out="N C!", inp="N C")
def gelu_forward(out: Array, inp: Array) -> None:
    """out = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))),  x = inp  (Hendrycks & Gimpel 2016; the form of GPT-2)

    In place: out may be inp.
    """


@operation(lambda d: (18 + FUNCTION) * d["N"] * d["C"], dinp="N C!", dout="N C", inp="N C")
def gelu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    """dinp = dout * d/dx [ x/2 (1 + tanh(u)) ],  u = sqrt(2/pi) (x + 0.044715 x^3),  x = inp

    In place: dinp may be dout.
    """


@operation(lambda d: (4 + FUNCTION) * d["N"] * d["C"], out="N C!", inp="N C")
def gelu_erf_forward(out: Array, inp: Array) -> None:
    """out = x/2 (1 + erf(x/sqrt(2))),  x = inp  (Hendrycks & Gimpel 2016; the form of BERT, GPT-NeoX and nanoGPT)

    In place: out may be inp.
    """


@operation(lambda d: (9 + 2 * FUNCTION) * d["N"] * d["C"], dinp="N C!", dout="N C", inp="N C")
def gelu_erf_backward(dinp: Array, dout: Array, inp: Array) -> None:
    """dinp = dout * ((1 + erf(x/sqrt(2)))/2 + x exp(-x^2/2)/sqrt(2 pi)),  x = inp

    In place: dinp may be dout.
    """


@operation(
    lambda d: 12 * d["B"] * d["T"] * d["NH"] * d["H"],
    twice=("qkv",),
    cosines="T H", sines="T H", qkv="B T 6*NH*H!",
)  # fmt: skip
def rotary_forward(qkv: Array, cosines: Array, sines: Array) -> None:
    """Rotary positions: rotate the queries and keys of position t by its angles (Su et al. 2021, eq. 34), in place.

    qkv[b,t] holds q, k and v one after the other, each NH heads of 2 H channels. For each head of q and k, and i < H:
        q[i], q[i+H] = q[i] cosines[t,i] - q[i+H] sines[t,i],  q[i+H] cosines[t,i] + q[i] sines[t,i]
    """


@operation(
    lambda d: 12 * d["B"] * d["T"] * d["NH"] * d["H"],
    twice=("dqkv",),
    cosines="T H", sines="T H", dqkv="B T 6*NH*H!",
)  # fmt: skip
def rotary_backward(dqkv: Array, cosines: Array, sines: Array) -> None:
    """The gradient of `rotary_forward`, in place: the rotation by the negative angles."""


@operation(
    lambda d: 4 * d["B"] * pairs_seen(d["T"], d.get("window", 0)) * d["C"],  # two products
    divides=("NH", "C"),
    out="B T C!", lse="B NH T!", qkv="B T 3*C",
)  # fmt: skip
def attention_forward(
    out: Array, lse: Array, qkv: Array, *, window: int = 0, dropout_rate: float = 0.0, dropout_key: int = 0,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    """Causal multi-head self-attention (Vaswani et al. 2017, eq. 1).

    qkv[b,t] holds q, k and v one after the other, each NH heads of HS channels. For each sequence and head, for j <= i:
        scores[i,j] = q[i] . k[j] / sqrt(HS);   weights = softmax_j(scores);   out[i] = sum_j weights[i,j] v[j]
        lse[i] = log sum_j exp(scores[i,j]),  from which the backward pass recomputes the weights
    With a window, only for i - window < j <= i (Child et al. 2019; Beltagy et al. 2020); 0 is no window.
    Dropout sets weights to 0 with probability `dropout_rate` and scales the others by 1/(1 - rate). In the mask of
    `dropout_key`, weight (i,j) of head h of sequence b is element ((b*NH + h)*T + i, j).

    Raises ContractError if window < 0.
    """


@operation(
    lambda d: 10 * d["B"] * pairs_seen(d["T"], d.get("window", 0)) * d["C"],  # scores, dweights, dq, dk, dv
    divides=("NH", "C"),
    dqkv="B T 3*C!", dout="B T C", qkv="B T 3*C", out="B T C", lse="B NH T",
)  # fmt: skip
def attention_backward(
    dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array,
    *, window: int = 0, dropout_rate: float = 0.0, dropout_key: int = 0, precision: Precision = "float32",
) -> None:  # fmt: skip
    """The gradient of `attention_forward`, with the weights recomputed from qkv and lse (Dao et al. 2022, alg. 4).

    weights = exp(scores - lse);   dv[j] = sum_i weights[i,j] dout[i];   dweights[i,j] = dout[i] . v[j]
    dscores = weights * (dweights - row_sum);   row_sum[i] = sum_j weights[i,j] dweights[i,j] = dout[i] . out[i]
    dq[i] = sum_j dscores[i,j] k[j] / sqrt(HS);   dk[j] = sum_i dscores[i,j] q[i] / sqrt(HS)

    Raises ContractError if window < 0.
    """


@operation(
    lambda d: 2 * d["B"] * pairs_seen(d["R"], d.get("window", 0), d.get("first", 0)) * d["C"],
    divides=("NH", "C"),
    weights="B NH R T!", qkv="B T 3*C",
)  # fmt: skip
def attention_weights(
    weights: Array, qkv: Array, first: int = 0, *, window: int = 0, precision: Precision = "float32"
) -> None:
    """weights[b,h,r] = softmax_j(scores) of query first + r, 0 for the keys that it does not see

    For inspection: training needs no weights from outside of `attention_forward` and `attention_backward`.

    Raises ContractError if the rows first .. first + R - 1 are not in [0, T), or window < 0.
    """


@operation(
    decoding_flops,
    drawn="int32<V D!", logits="V!", keys="K L NH S HS^!", values="K L NH S HS^!",
    token_table="V C", position_table="S C?",
    ln_1_weight="L C", ln_1_bias="L C?", qkv_weight="L NH C 3*HS^", qkv_bias="L NH 3*HS?",
    attn_proj_weight="L NH HS C^", attn_proj_bias="L C?",
    ln_2_weight="L C", ln_2_bias="L C?", fc_weight="L G C M^", fc_bias="L G M?",
    mlp_proj_weight="L G M C^", mlp_proj_bias="L C?",
    ln_f_weight="C", ln_f_bias="C?", head="V C^", cosines="D H?", sines="D H?",
)  # fmt: skip
def decode_tokens(
    drawn: Array, logits: Array, keys: Array, values: Array, token: int, index: int,
    token_table: Array, position_table: Array | None,
    ln_1_weight: Array, ln_1_bias: Array | None, qkv_weight: Array, qkv_bias: Array | None,
    attn_proj_weight: Array, attn_proj_bias: Array | None,
    ln_2_weight: Array, ln_2_bias: Array | None, fc_weight: Array, fc_bias: Array | None,
    mlp_proj_weight: Array, mlp_proj_bias: Array | None,
    ln_f_weight: Array, ln_f_bias: Array | None, head: Array,
    cosines: Array | None = None, sines: Array | None = None,
    *, norm: Norm, activation: Activation, temperature: float, top_k: int, top_p: float, key: int, draw: int,
    windows: tuple[int, ...] = (), residual: bool = True, precision: Precision = "float32",
) -> int:  # fmt: skip
    """Generation: read token number `index` of a text, draw the next one, read that, and so on, until D are drawn.

    Each token goes through the whole transformer as one row of activations. The weights are stored by head and by group
    of hidden units; each head and each group adds its share to the stream:
        x += sum_h attend_h(ln_1(x) qkv_weight[h] + qkv_bias[h]) attn_proj_weight[h] + attn_proj_bias
        x += sum_g activation(ln_2(x) fc_weight[g] + fc_bias[g]) mlp_proj_weight[g] + mlp_proj_bias
    with norm "pre"; with norm "post", x = ln_1(x + ...) and x = ln_2(x + ...). Without `residual`, the sums replace x,
    for an experiment. Then logits = ln_f(x) head^T, and
    `sample_token` draws a token with random number `draw` of stream `key`, the next one with `draw` + 1, and so on.

    The token's keys and values are stored for each layer and head. Where it stands is either added to the stream or
    rotated into queries and keys:
        position_table    K = 2: the place of a token in a window of S places; window k has cache k mod 2
        cosines, sines    K = 1: row n has the angles of token index + n, for `rotary_forward`. The cache is a ring: a
                          token takes the place of the one S before it, and sees itself and the S - 1 before it
    With `windows`, layer l sees the last windows[l] of these tokens, 0 for all, and only the first windows[l] places of
    its cache are used, as a ring. See `kernels.windows`. The caches must already hold the tokens before `index`. On
    return `logits` are those that the last token was drawn from.

    Returns the number of tokens drawn, which is less than D if logits are not finite.
    Raises ContractError if token is not in [0, V), index < 0, not exactly one kind of positions is given, or there are
    windows, but not one for each layer.
    """
    raise NotImplementedError


@operation(lambda d: (5 + FUNCTION) * d["V"], logits="V")
def sample_token(logits: Array, *, temperature: float, top_k: int, top_p: float, noise: float) -> int:
    """Draw a token by inverse transform sampling. `noise` is uniform in [0, 1).

    All in float64. Tokens are ordered by weight, largest first; of equal ones, the lower id first.
    weight[v] = exp((logits[v] - max logits) / temperature) for the `top_k` largest logits, 0 for others; top_k = 0: all
    total = sum of weights, in the order of v;  running[i] = sum of the i + 1 largest weights, largest first
    top_p < 1: total = the first of running that is at least top_p * total (Holtzman et al. 2020)
    The token is the first in that order with running > noise * total, or the last one if rounding leaves none.
    Temperature 0 takes the largest logit.

    Returns the token, or -1 if a logit is not finite.
    """
    raise NotImplementedError


@operation(lambda d: (2 + d["residual"]) * d["N"] * d["C"], out="N C!", inp="N C", residual="N C?")
def dropout_forward(out: Array, inp: Array, rate: float, key: int, *, residual: Array | None = None) -> None:
    """out = inp * mask / (1 - rate) + residual;  mask[n,c] is 0 with probability `rate`, else 1

    Dropout (Srivastava et al. 2014). The mask is a pure function of (key, n, c); see `numpy_ref.dropout.dropout_mask`.

    In place: out may be inp or residual.
    """


@operation(lambda d: 2 * d["N"] * d["C"], dinp="N C!", dout="N C")
def dropout_backward(dinp: Array, dout: Array, rate: float, key: int) -> None:
    """dinp = dout * mask / (1 - rate),  with the mask of the forward pass.  In place: dinp may be dout."""


@operation(
    lambda d: (3 + FUNCTION + 2 * d["dlogits"]) * d["N"] * d["V"],
    losses="N!", dlogits="N V?!", logits="N V", targets="int32<V N",
)  # fmt: skip
def cross_entropy(
    losses: Array, dlogits: Array | None, logits: Array, targets: Array, *, scale: float = 1.0
) -> None:
    """Softmax, cross-entropy and its gradient.

    losses[n] = log sum_v exp(logits[n,v]) - logits[n,targets[n]],  in nats
    dlogits = (softmax(logits) - onehot(targets)) * scale;  None: losses only.  In place: dlogits may be logits.
    """


@operation(lambda d: 2 * d["P"], gradients="P")
def squared_norm(gradients: Array) -> float:
    """The sum of the squares of all elements, in float64, in an order that depends on P alone."""
    raise NotImplementedError


@operation(
    lambda d: 15 * d["P"] + 2 * d["decayed"],
    twice=("parameters", "gradients", "first_moment", "second_moment"),
    parameters="P!", gradients="P!", first_moment="P!", second_moment="P!",
)  # fmt: skip
def adamw(
    parameters: Array, gradients: Array, first_moment: Array, second_moment: Array,
    *, step: int, decayed: int, learning_rate: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    """One step of Adam with decoupled weight decay (Loshchilov & Hutter 2019, alg. 2), in place.

    g = gradients * gradient_scale, for gradient clipping;   then gradients = 0, ready for the next step
    m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2;   step counts from 1
    w = w - learning_rate * ( m/(1 - beta1^step) / (sqrt(v/(1 - beta2^step)) + eps) + weight_decay * w )
    Weight decay applies to the first `decayed` parameters, the matrices.
    """


@operation(
    muon_flops,
    twice=("parameters", "gradients", "momentum"),
    parameters="P!", gradients="P!", momentum="P!",
)  # fmt: skip
def muon(
    parameters: Array, gradients: Array, momentum: Array,
    *, matrices: tuple[MatrixAt, ...], learning_rate: float, beta: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    """One step of Muon (Jordan et al. 2024) for matrices that lie in the same places of all three arrays, in place.

    g = gradients * gradient_scale, for gradient clipping;   then gradients = 0, ready for the next step
    m = beta m + (1 - beta) g;   u = beta m + (1 - beta) g, which is Nesterov's form of momentum
    w = w - learning_rate * ( sqrt(max(1, columns/rows)) * orthogonalized(u) + weight_decay * w )

    orthogonalized(u) has the singular vectors of u and singular values of about 1, or 0 where those of u are. It takes
    the polynomials of `newton_schulz.COEFFICIENTS`, one after the other, of X = u / max(|u|, MUON_EPS), where |u| is
    the root of the sum of squares:  X = a X + b (X X^T) X + c (X X^T)^2 X.

    What lies between the matrices is left as it is. Raises ContractError if a matrix is not inside of the arrays, or
    overlaps another one.
    """
