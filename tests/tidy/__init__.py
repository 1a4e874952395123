"""House rules as tests. A rule said twice in review becomes a line here."""
