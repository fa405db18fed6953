"""Two directors in the lab: their topology, clients that count every byte, injuries, and the watcher."""
