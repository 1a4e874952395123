"""PyPI's x402 pays a gateway in credits: each scheme and endpoint, as one line.

python x402_credit_clients.py URL STATE [KEY]
"""

import asyncio
import base64
import json
import sys
from typing import Any

from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402_credits import register_credits

CHAT = {"model": "hash", "messages": [{"role": "user", "content": "SAY:hello"}], "max_tokens": 20}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "stream": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "completion": ("/v1/completions", {"model": "hash", "prompt": "SAY:hello", "max_tokens": 20}),
}


async def main(url: str, state: str, key: str = "") -> None:
    """Ask everything once."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    for scheme in ("batch-settlement", "exact"):
        client = x402Client()
        register_credits(client, state=state, pay_max=1_000_000, wanted=(scheme,))
        async with x402HttpxClient(client, headers=headers, timeout=60) as http:
            for what, (path, body) in BODIES.items():
                found = await http.post(url + path, json=body)
                header = found.headers.get("payment-response")
                told = {
                    "who": f"v2 {scheme}",
                    "what": what,
                    "status": found.status_code,
                    "receipt": header and json.loads(base64.b64decode(header)),
                    "text": found.text,
                }
                print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
