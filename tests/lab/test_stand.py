"""The topology made real, on a kernel with IPVS."""
