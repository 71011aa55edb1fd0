"""Tables of results: how they are written, found, collected and packed."""
