"""Two directors in the lab: their topology, clients that count every byte, what kills them, and who watches."""
