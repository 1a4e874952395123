"""An auditor: fetches a receipt and checks it here. What the gateway says of it is not believed."""

import os
import sys

import node
from node.checking.audit import Status, audit
from wire.content import ContentId


def main(receipt: str) -> int:
    address = os.environ.get("BATON_URL", "http://127.0.0.1:8000")
    with node.connect_blocking(address, key=os.environ.get("BATON_KEY")) as net:
        data = net.receipt(receipt).data
    # No content is at hand: its points come out as unknown.
    report = audit(data, lambda _: None)
    # A gateway could send another receipt, which holds as well.
    right = ContentId.of(data) == ContentId.parse(receipt)
    for point in report.points:
        print(f"{point.status.value:16} {point.what}")
    bad = (Status.FAILS, Status.DISPUTED)
    wrong = [it.what for it in report.points if it.status in bad]
    holds = right and report.holds
    print("holds" if holds else f"does not hold: {', '.join(wrong) or 'it is another receipt'}")
    return 0 if holds else 1


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 2:
        print(f"{__doc__}\nusage: python {sys.argv[0]} RECEIPT-ID")
        sys.exit("--help" not in sys.argv)
    sys.exit(main(*sys.argv[1:]))
