"""Which peer gets a leg, and what happens if it fails: routing, quotes, handing on, failover."""
