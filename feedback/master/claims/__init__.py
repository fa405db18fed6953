"""Claims: what overrides the law for a destination: the configuration, another owner, an order, a check, a trial."""
