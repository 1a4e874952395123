"""When a machine's owner comes first: rules, and what the machine is used for at the moment."""
