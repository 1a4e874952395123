"""Outside data: sources as records, fetched under guard, parsed apart, and attested."""
