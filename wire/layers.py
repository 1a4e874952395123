"""A range of a language model's layers, and how a peer that holds one says so in its advert.

An offer in an advert has a model's id and a name. Peers that know nothing of ranges refuse an offer
with further fields, so a range is offered as a model of its own: its id is derived from the whole
model's, so that only who knows the model looks for it, and its name is the range, as text that is
read back strictly.
"""

import re
from dataclasses import dataclass
from typing import Self

from wire.content import ContentId
from wire.errors import Malformed

LAYERS_MAX = 256
_DOMAIN = b"baton/1/layers of "
_NAME = re.compile(r"layers (\d{1,3})-(\d{1,3}) of (\d{1,3})")


@dataclass(frozen=True, slots=True, order=True)
class LayerRange:
    """The layers from `first` to `last`, both included, of `count`; Malformed if there are none."""

    first: int
    last: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < self.count <= LAYERS_MAX:
            raise Malformed(f"{self} are none: layers are counted from 0")

    def __str__(self) -> str:
        return f"layers {self.first}-{self.last} of {self.count}"

    @classmethod
    def read(cls, name: str) -> Self | None:
        """The range that an offer's name says; None for every other name."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        try:
            layers = cls(*map(int, found.groups()))
        except Malformed:
            return None
        return layers if str(layers) == name else None

    @property
    def whole(self) -> bool:
        """Whether these are all layers."""
        return self.last - self.first + 1 == self.count

    @property
    def begins(self) -> bool:
        """Whether the first layer is among them."""
        return self.first == 0

    @property
    def size(self) -> int:
        """How many layers these are."""
        return self.last - self.first + 1


def layers_id(model: ContentId) -> ContentId:
    """The id under which ranges of a model are offered, all of them."""
    return ContentId.of(_DOMAIN + model)
