"""A table classified as one batch, with OpenAI's own client: many rows asked, fetched later."""

import csv
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import openai


def requests_of(path: str, model: str, labels: list[str]) -> Iterator[str]:
    """One line of the batch's file for each row of a CSV file with a column `text`."""
    told = f"Answer with one word, one of: {', '.join(labels)}."
    with Path(path).open(newline="", encoding="utf-8") as table:
        for number, row in enumerate(csv.DictReader(table)):
            messages = [
                {"role": "system", "content": told},
                {"role": "user", "content": row["text"]},
            ]
            body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8}
            yield json.dumps(
                {
                    "custom_id": f"row-{number}",
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": body,
                }
            )


def main(model: str, path: str, *labels: str) -> None:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=os.environ.get("BATON_KEY", "none"))
    lines = "\n".join(requests_of(path, model, list(labels)))
    file = client.files.create(file=("rows.jsonl", lines.encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    if batch.output_file_id is None:
        sys.exit(f"the batch is {batch.status}: {batch.errors or batch.error_file_id}")
    counts: Counter[str] = Counter()
    receipts = set()
    for line in client.files.content(batch.output_file_id).text.splitlines():
        body = json.loads(line)["response"]["body"]
        said = body["choices"][0]["message"]["content"].strip().lower()
        counts[said if said in labels else "something else"] += 1
        receipts.add(body["x_baton"]["receipt"])
    for label, count in counts.most_common():
        print(count, label)
    print(f"{len(receipts)} receipts")


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 4:
        print(f"{__doc__}\nusage: python {sys.argv[0]} MODEL TABLE.csv LABEL …")
        sys.exit("--help" not in sys.argv)
    main(*sys.argv[1:])
