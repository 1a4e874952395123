"""LSTM, GRU and RNN of ONNX, step by step along the sequence. Runs in the worker only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad import Tensor

from wire.errors import ModelRefused

# Each step is a part of the captured graph.
STEPS_MAX = 1024
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(),
    "softsign": lambda x: x / (1 + x.abs()),
    "tanh": lambda x: x.tanh(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One direction of a layer; matrices as ONNX has them, with their gates one below another."""

    w: Tensor
    r: Tensor
    b: Tensor | None
    peepholes: Tensor | None
    hidden: int
    activations: Sequence[Callable[[Tensor], Tensor]]
    clip: float
    linear_before_reset: bool

    def bias(self, rows: slice, half: int) -> Tensor | float:
        """A part of the biases of the input (`half` 0) or of the recurrence (1)."""
        if self.b is None:
            return 0.0
        count = self.b.shape[0] // 2
        return self.b[half * count : (half + 1) * count][rows]

    def clipped(self, x: Tensor) -> Tensor:
        return x.clip(-self.clip, self.clip) if self.clip else x


State = tuple[Tensor, ...]
Step = Callable[[_Layer, Tensor, State], State]


def _gate(layer: _Layer, number: int) -> slice:
    return slice(number * layer.hidden, (number + 1) * layer.hidden)


def _lstm_step(layer: _Layer, x: Tensor, state: State) -> State:
    h, c = state
    both = x + h @ layer.r.T + layer.bias(slice(None), 1)
    i, o, f, g = (both[:, _gate(layer, it)] for it in range(4))
    p = layer.peepholes
    first, second, third = layer.activations
    if p is not None:
        i, f = i + p[_gate(layer, 0)] * c, f + p[_gate(layer, 2)] * c
    i, f, g = (layer.clipped(it) for it in (i, f, g))
    c = (first(f) * c + first(i) * second(g)).contiguous()
    if p is not None:
        o = o + p[_gate(layer, 1)] * c
    return (first(layer.clipped(o)) * third(c)).contiguous(), c


def _gru_step(layer: _Layer, x: Tensor, state: State) -> State:
    (h,) = state
    first, second = layer.activations
    z, r, n = (_gate(layer, it) for it in range(3))
    zr = slice(0, 2 * layer.hidden)
    both = first(layer.clipped(x[:, zr] + h @ layer.r[zr].T + layer.bias(zr, 1)))
    update, reset = both[:, z].contiguous(), both[:, r].contiguous()
    if layer.linear_before_reset:
        new = x[:, n] + reset * (h @ layer.r[n].T + layer.bias(n, 1))
    else:
        new = x[:, n] + (reset * h) @ layer.r[n].T + layer.bias(n, 1)
    made = second(layer.clipped(new))
    return (((1 - update) * made + update * h).contiguous(),)


def _rnn_step(layer: _Layer, x: Tensor, state: State) -> State:
    both = x + state[0] @ layer.r.T + layer.bias(slice(None), 1)
    return (layer.activations[0](layer.clipped(both)).contiguous(),)


def _layers(step: Step, usual: Sequence[str]) -> Callable[..., tuple[Tensor, ...]]:
    """The operator whose steps are these; `usual`: its activations where a file names none."""
    # An LSTM alone has a second state, and it alone has peepholes.
    states = 2 if step is _lstm_step else 1

    def layers(
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        lengths: Tensor | None = None,
        *more: Tensor | None,
        **given: Any,
    ) -> tuple[Tensor, ...]:
        if given.get("input_forget"):
            raise ModelRefused("LSTM with input_forget is not run here")
        begin = (*more, None, None, None)
        weights = {"w": w, "r": r, "b": b, "peepholes": begin[2]}
        return _run(step, x, weights, lengths, begin[:states], given, usual)

    return layers


def _run(
    step: Step,
    x: Tensor,
    weights: Mapping[str, Tensor | None],
    lengths: Tensor | None,
    states: Sequence[Tensor | None],
    given: Mapping[str, Any],
    usual: Sequence[str],
) -> tuple[Tensor, ...]:
    """Every output: of each step [steps, directions, rows, hidden], then the last states."""
    aside = bool(given.get("layout", 0))
    x = x.transpose(0, 1) if aside else x
    steps, rows = int(x.shape[0]), int(x.shape[1])
    if steps > STEPS_MAX:
        raise ModelRefused(f"a sequence of {steps} steps; at most {STEPS_MAX} are run")
    r = weights["r"]
    assert r is not None, "the standard has it"
    directions, hidden = int(r.shape[0]), int(r.shape[-1])
    how = given.get("direction", "forward")
    if directions != (2 if how == "bidirectional" else 1):
        raise ModelRefused(f"{directions} directions, where {how[:40]!r} is said")
    acts = _activations(given, usual, directions)
    made, last = [], []
    for number in range(directions):
        layer = _Layer(
            **{name: None if it is None else it[number] for name, it in weights.items()},
            hidden=hidden,
            activations=acts[number * len(usual) : (number + 1) * len(usual)],
            clip=float(given.get("clip", 0.0)),
            linear_before_reset=bool(given.get("linear_before_reset", 0)),
        )
        begin = tuple(
            Tensor.zeros(rows, hidden, dtype=x.dtype).contiguous()
            if it is None
            else (it.transpose(0, 1) if aside else it)[number]
            for it in states
        )
        backwards = how == "reverse" or number == 1
        outputs, state = _sequence(step, layer, x, lengths, begin, backwards)
        made.append(outputs)
        last.append(state)
    y = Tensor.stack(*made, dim=1)
    ends = [Tensor.stack(*parts, dim=0) for parts in zip(*last, strict=True)]
    if aside:
        return y.permute(2, 0, 1, 3), *(it.transpose(0, 1) for it in ends)
    return y, *ends


def _sequence(
    step: Step,
    layer: _Layer,
    x: Tensor,
    lengths: Tensor | None,
    state: State,
    backwards: bool,
) -> tuple[Tensor, State]:
    # What comes in is multiplied for all steps at once.
    mapped = (x @ layer.w.T + layer.bias(slice(None), 0)).contiguous()
    count = int(x.shape[0])
    outputs: list[Any] = [None] * count
    for at in reversed(range(count)) if backwards else range(count):
        after = step(layer, mapped[at], state)
        if lengths is None:
            state, outputs[at] = after, after[0]
            continue
        # Beyond a row's end its state stays, and it gives zeros.
        within = (lengths > at).reshape(-1, 1)
        state = tuple(
            within.where(new, old).contiguous() for new, old in zip(after, state, strict=True)
        )
        outputs[at] = within.where(after[0], 0.0)
    return Tensor.stack(*outputs, dim=0), state


def _activations(
    given: Mapping[str, Any], usual: Sequence[str], directions: int
) -> list[Callable[[Tensor], Tensor]]:
    names = [str(it).lower() for it in given.get("activations") or [*usual] * directions]
    if len(names) != len(usual) * directions:
        raise ModelRefused(f"{len(names)} activations for {directions} directions")
    for name in names:
        if name not in _ACTIVATIONS:
            raise ModelRefused(f"the activation {name[:40]!r} is not run here")
    return [_ACTIVATIONS[it] for it in names]


lstm = _layers(_lstm_step, ("sigmoid", "tanh", "tanh"))
gru = _layers(_gru_step, ("sigmoid", "tanh"))
rnn = _layers(_rnn_step, ("tanh",))
