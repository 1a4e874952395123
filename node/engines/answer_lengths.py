"""How long answers of language models really are: far shorter than clients allow. A pure core."""

from dataclasses import dataclass, field

from wire.content import ContentId

# Before any answer was seen, and of how many answers the mean remembers about.
UNITS_FIRST = 256.0
REMEMBERED = 16
# Whoever needs no more than this is never refused for what it allows: a short answer.
UNITS_LEAST = 16
# An answer beyond its expected length goes on for about this part of what it has.
BEYOND_SHARE = 0.25
MODELS_MAX = 64


@dataclass(slots=True)
class AnswerLengths:
    """The mean length of each model's last answers, in tokens."""

    _means: dict[ContentId, float] = field(default_factory=dict)

    def learn(self, model: ContentId, units: int) -> None:
        """An answer of `units` has ended."""
        mean = self._means.pop(model, UNITS_FIRST)
        self._means[model] = mean + (units - mean) / REMEMBERED
        if len(self._means) > MODELS_MAX:
            self._means.pop(next(iter(self._means)))

    def expected(self, model: ContentId, most: int, made: int = 0) -> int:
        """How many tokens an answer will have that may have `most` and has `made`."""
        mean = self._means.get(model, UNITS_FIRST)
        return max(1, min(most, round(max(mean, made * (1 + BEYOND_SHARE)))))
