"""Sources: what a page that is not our agent's says of a server, as the report that an agent would have sent."""
