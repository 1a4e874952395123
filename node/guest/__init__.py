"""When a machine's owner has priority: the rules, and how the machine is used at the moment."""
