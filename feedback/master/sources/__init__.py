"""Sources: figures of a server from another page than our agent's, as the report that an agent would have sent."""
