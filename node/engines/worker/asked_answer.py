"""What a generation asks for, as an answer to begin with: its prompt's tokens, its rules. Worker.

Nothing here runs a model, nor needs what does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from node.engines.formats.gguf_model import GgufModel
from node.engines.sampler import Sampling
from node.engines.sketch import Sketching
from node.engines.worker.chat import ChatTemplate
from node.engines.worker.gguf_tokens import TokenTable, read_table
from node.engines.worker.grammar import Grammars
from node.engines.worker.sequence import TokenSequence
from wire.errors import ModelRefused
from wire.generation import Generation


@dataclass(slots=True)
class AskedAnswers:
    """Begins the answers of one model. `context` is how many tokens it reads and answers."""

    model: bytes
    table: TokenTable
    chat: ChatTemplate
    context: int
    hidden: int
    _grammars: Grammars | None = field(default=None, init=False)

    @classmethod
    def of(
        cls, model_id: bytes, model: GgufModel, context: int, table: TokenTable | None = None
    ) -> "AskedAnswers":
        """For a model, whose table may have been read already; ModelRefused."""
        table = table or read_table(model)
        chat = ChatTemplate(model.chat_template, _names(model, table), table.controls)
        return cls(model_id, table.with_ending(chat.ending), chat, context, model.hidden)

    def begun(
        self,
        asked: Generation,
        parameters: Mapping[str, Any],
        number: int = 0,
        shown: Sequence[int] = (),
    ) -> TokenSequence:
        """An answer to begin with; `shown` is what another made of it. ModelRefused."""
        sampling = Sampling.of(parameters)
        tokens = self._prompt_of(asked)
        if not tokens:
            raise ModelRefused("the prompt has no tokens")
        if len(tokens) >= self.context:
            raise ModelRefused(
                f"the prompt has {len(tokens)} tokens; the context has {self.context}, answer"
                " included"
            )
        grammar = None
        if asked.schema:
            self._grammars = self._grammars or Grammars(self.table)
            grammar = self._grammars.of(asked.schema)
        most = min(sampling.tokens, self.context - len(tokens))
        words = len(self.table.names)
        forced = [token for token in shown if 0 <= token < words]
        return TokenSequence(
            bias={it.token: it.millionths / 1e6 for it in asked.bias},
            id=number,
            model=self.model,
            table=self.table,
            prompt=tokens,
            most=most,
            sampling=sampling,
            stops=tuple(stop.encode() for stop in asked.stop),
            grammar=grammar,
            forced=forced[: max(0, most - 1)],
            sketching=Sketching() if sampling.sketch else None,
            hidden=self.hidden,
        )

    def claimed(self, answer: TokenSequence, tokens: bytes) -> list[int]:
        """The tokens of a claimed answer, 4 bytes each, as far as they can be."""
        found = np.frombuffer(tokens, "<u4")
        strange = np.flatnonzero(found >= len(self.table.names))
        count = min(answer.most, len(found), *map(int, strange[:1]))
        return [int(it) for it in found[:count]]

    def _prompt_of(self, asked: Generation) -> list[int]:
        """The tokens to go on from."""
        if asked.messages:
            # What is said in messages is text, whoever says it; a whole prompt is its sender's
            # own, control tokens included.
            parts = self.chat.parts(asked.messages, asked.tools, asked.template)
            return self.table.of_parts(parts)
        if not asked.prompt_tokens:
            return self.table.of(asked.prompt)
        words = len(self.table.names)
        if (most := max(asked.prompt_tokens)) >= words:
            raise ModelRefused(f"the prompt has the token {most}; the model has {words} tokens")
        return list(asked.prompt_tokens)


def _names(model: GgufModel, table: TokenTable) -> dict[str, str]:
    """The special tokens that templates ask for by name."""
    ends = model.metadata.get("tokenizer.ggml.eos_token_id")
    return {
        "bos_token": table.name(table.begin),
        "eos_token": table.name(ends if isinstance(ends, int) and ends in table.ends else None),
    }
