"""Shell: bytes in, bytes out: sockets, files, the kernel, the clock. It decides nothing."""
