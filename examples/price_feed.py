"""A price feed: prices from a server here, forecast by a model that is trained here, every second.

Goes through the peer that runs on a state folder: join --role data --role infer --state FOLDER
"""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from wire.varint import varint_of

# So many prices are looked at, to forecast the next one.
LOOKED_AT = 8
SOURCE = """kind = "http"
url = "http://127.0.0.1:{port}/prices"
format = "json"
columns = {{time = "time", price = "price"}}
"""
WORKFLOW = """every = "1s"
overlap = "queue"
[source]
name = "prices"
[model]
name = "price-forecast"
operation = "call"
verdicts = "{verdicts}"
[model.inputs.prices]
columns = ["price"]
last = {count}
shape = [1, {count}]
[[to]]
kind = "feed"
"""


def main(state: str, seconds: str = "10", verdicts: str = "0/0") -> None:
    folder = Path(state)
    if missing := {"data", "infer"} - set(node(state, "status")["roles"]):
        roles = " and ".join(sorted(missing))
        sys.exit(f"this peer has no role {roles}: join --role data --role infer --state {state}")
    market = Market()
    weights, error = trained(market.prices)
    print(f"trained on {len(market.prices)} prices: off by {error:.3f} on average")
    (folder / "price-forecast.onnx").write_bytes(onnx_model(weights))
    server = ThreadingHTTPServer(("127.0.0.1", 0), market.handler())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source, workflow = folder / "prices.toml", folder / "price-feed.toml"
    source.write_text(SOURCE.format(port=server.server_port))
    workflow.write_text(WORKFLOW.format(count=LOOKED_AT, verdicts=verdicts))
    node(state, "models", "add", folder / "price-forecast.onnx")
    node(state, "sources", "add", "prices", source, "--allow-host")
    added = node(state, "workflows", "add", workflow)
    print(f"others follow it: python -m node workflows follow {added['feed']}")
    time.sleep(float(seconds))
    entries = node(state, "workflows", "history", "price-feed")["entries"]
    for entry in reversed(entries):
        result = entry["result"] or {}
        forecast = result["outputs"]["forecast"]["data"][0] if result else entry["why"]
        print(f"{entry['slot']}  {entry['end']}  forecast {forecast}  receipt {entry['receipt']}")
    node(state, "workflows", "rm", "price-feed")
    node(state, "models", "rm", "price-forecast")
    if not any(entry["end"] == "done" for entry in entries):
        sys.exit("no slot has a forecast")


class Market:
    """Prices that swing and wander, a new one every second."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        times = np.arange(2000)
        swing = 3 * np.sin(times / 9) + np.cumsum(random.normal(0, 0.05, len(times)))
        self.prices = (100 + swing).round(3)
        self.began_s = time.monotonic()

    def shown(self) -> list[dict[str, float]]:
        until = 500 + int(time.monotonic() - self.began_s)
        return [{"time": at, "price": self.prices[at]} for at in range(until - 50, until)]

    def handler(self) -> type[BaseHTTPRequestHandler]:
        market = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(market.shown()).encode()
                self.send_response(200 if self.path == "/prices" else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing of each request."""

        return Handler


def trained(prices: np.ndarray) -> tuple[np.ndarray, float]:
    """What the last prices say of the next one, by least squares, and its mean error."""
    windows = np.lib.stride_tricks.sliding_window_view(prices[:-1], LOOKED_AT)
    following = prices[LOOKED_AT:]
    half = len(following) // 2
    weights = np.linalg.lstsq(windows[:half], following[:half], rcond=None)[0]
    error = float(np.abs(windows[half:] @ weights - following[half:]).mean())
    return weights.astype("<f4"), error


def onnx_model(weights: np.ndarray) -> bytes:
    """prices [1, n] @ weights [n, 1] = forecast [1, 1], as ONNX keeps a graph in protobuf."""
    count = len(weights)
    matrix = number(1, count) + number(1, 1) + number(2, 1) + words(8, "w")
    matrix += part(9, weights.tobytes())
    product = words(1, "prices") + words(1, "w") + words(2, "forecast") + words(4, "MatMul")
    graph = part(1, product) + words(2, "price-forecast") + part(5, matrix)
    graph += part(11, tensor("prices", 1, count)) + part(12, tensor("forecast", 1, 1))
    return number(1, 8) + part(7, graph) + part(8, number(2, 13))


def tensor(name: str, *shape: int) -> bytes:
    """A name and its type: 32-bit floats of this shape."""
    sides = b"".join(part(1, number(1, it)) for it in shape)
    return words(1, name) + part(2, part(1, number(1, 1) + part(2, sides)))


def number(field: int, value: int) -> bytes:
    return varint_of(field << 3) + varint_of(value)


def part(field: int, data: bytes) -> bytes:
    return varint_of(field << 3 | 2) + varint_of(len(data)) + data


def words(field: int, text: str) -> bytes:
    return part(field, text.encode())


def node(state: str, *arguments: object) -> dict:
    """What a command says; ends this program with the command's own words if it fails."""
    command = [sys.executable, "-m", "node", *map(str, arguments), "--state", state, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 2:
        print(f"{__doc__}\nusage: python {sys.argv[0]} STATE-FOLDER [SECONDS [VERDICTS]]")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
