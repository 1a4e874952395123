"""How much memory a model takes, and how many conversations of it fit in a budget. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMemory:
    """What a model takes of the memory it runs in, worked out before it is loaded.

    `besides_bytes` is what is there besides the weights: the engine itself and work. `slot_bytes`
    are the keys and values of one conversation of full length, and `slots_max` the most of them.
    """

    weights_bytes: int
    besides_bytes: int
    slot_bytes: int = 0
    slots_max: int = 0

    @property
    def least_bytes(self) -> int:
        """With one conversation at a time."""
        return self.weights_bytes + self.besides_bytes + self.slot_bytes

    @property
    def most_bytes(self) -> int:
        """With as many conversations at once as are ever run."""
        return self.least_bytes + max(0, self.slots_max - 1) * self.slot_bytes

    def to_plain(self) -> dict[str, int]:
        """For people and scripts, with all conversations."""
        return {
            "weights_bytes": self.weights_bytes,
            "keys_and_values_bytes": self.slots_max * self.slot_bytes,
            "conversations": self.slots_max,
            "besides_bytes": self.besides_bytes,
            "least_bytes": self.least_bytes,
            "most_bytes": self.most_bytes,
        }

    def slots(self, budget_bytes: int) -> int:
        """How many conversations fit; 0 if not even one does."""
        if budget_bytes < self.least_bytes or not self.slot_bytes:
            return 0
        rest_bytes = budget_bytes - self.weights_bytes - self.besides_bytes
        return min(self.slots_max, rest_bytes // self.slot_bytes)

    def within(self, budget_bytes: int) -> int:
        """What it takes of such a budget; more than that if it does not fit."""
        missing = self.slots_max - max(1, self.slots(budget_bytes)) if self.slots_max else 0
        return self.most_bytes - missing * self.slot_bytes
