"""Any VIDEO of the host to a file: source (its frames one by one), formats (as data), encode, nodes."""
