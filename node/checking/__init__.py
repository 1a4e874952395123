"""Whether an answer may be believed: the verifiers' quorum, and the audit of a receipt offline."""
