"""Claims: whose word holds a destination: the configuration, another owner, an order, a check, a trial."""
