"""The models that a peer serves: fetched and loaded, and tried again while that fails."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.engines.interface import Loaded
from node.models.collection import Models
from node.models.inspect import is_path
from node.models.probing import Probing
from wire.content import ContentId
from wire.errors import (
    EngineError,
    EngineMissing,
    InputError,
    ModelRefused,
    StoreError,
    TransportError,
    WireError,
)

MODEL_RETRY_S_MAX = 300.0


@dataclass(slots=True)
class ModelLoader:
    """Keeps models ready; `problems` says in words why a model is not ready yet.

    A model that cannot be served has a problem there, and the peer goes on. The peer ends if none
    of the `needed` models can be served: then it would have nothing to do.
    """

    models: Models
    probing: Probing
    nursery: trio.Nursery
    # What is done with a model that was loaded, besides serving it.
    when_ready: Callable[[Loaded], Awaitable[None]] | None = None
    problems: dict[str, str] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    _scopes: dict[str, trio.CancelScope] = field(default_factory=dict)
    _probing: bool = False

    def start(self, name: str) -> None:
        """Begin to serve a model."""
        if name in self._scopes:
            return
        scope = self._scopes[name] = trio.CancelScope()
        self.nursery.start_soon(self._keep_ready, name, scope)
        if not self._probing:
            self._probing = True
            self.nursery.start_soon(self.probing.run)

    def stop(self, model: ContentId, name: str) -> None:
        """Stop serving a model, by whichever name it was started."""
        for called in (name, str(model)):
            self.problems.pop(called, None)
            if (scope := self._scopes.pop(called, None)) is not None:
                scope.cancel()

    async def _keep_ready(self, name: str, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await self._made_ready(name)
            except (InputError, EngineMissing, ModelRefused) as error:
                # Trying again cannot help; the person who started the peer has to change something.
                self.problems[name] = str(error)
                if name in self.needed:
                    self.needed.discard(name)
                    if not self.needed:
                        raise

    async def _made_ready(self, name: str) -> None:
        """Fetch a model and load it; after a failure note why and try again, ever more slowly."""
        # The first retry comes soon: in a network that is just starting, peers are still joining.
        wait_s = 1.0
        while True:
            self.problems.pop(name, None)
            try:
                loaded = await self.models.make_ready(name)
            except (InputError, EngineMissing, ModelRefused):
                raise
            except (EngineError, StoreError, TransportError, WireError) as error:
                self.problems[name] = str(error)
                await self._wait(name, wait_s)
                wait_s = min(MODEL_RETRY_S_MAX, wait_s * 1.3)
            else:
                # The model is offered to others once a probe of it passed.
                self.probing.look()
                if self.when_ready is not None:
                    self.nursery.start_soon(self.when_ready, loaded)
                return

    async def _wait(self, name: str, wait_s: float) -> None:
        if is_path(name):
            await trio.sleep(wait_s)
            return
        with trio.move_on_after(wait_s):
            # No peer had the model: once a peer offers it, try at once.
            await self.models.wait_for_holder(name)
